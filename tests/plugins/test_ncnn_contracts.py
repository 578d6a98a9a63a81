"""What the exporter and the quantizer of ncnn must keep."""

import pytest

from edgeopt.testing import ExporterContract, QuantizerContract

pytest.importorskip("ncnn", reason="ncnn is an extra, which this environment has not")


class TestNcnn(ExporterContract):
    name = "ncnn"
    fixed_batch = 1
    int8_quantizer = "ncnn"


class TestNcnnQuantizer(QuantizerContract):
    name = "ncnn"
