from edgeopt.testing import ExporterContract


class TestExampleNumpy(ExporterContract):
    name = "example-numpy"
