"""The exporters of the browser keep the contract, in headless Chromium."""

from __future__ import annotations

import pytest

from edgeopt.plugins import ExportError
from edgeopt.testing import ExporterContract
from edgeopt_web.browser import find_browser
from edgeopt_web.runtime import litert_web, onnx_web


@pytest.fixture(scope="module", autouse=True)
def runtimes() -> None:
    if find_browser() is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    try:
        onnx_web(), litert_web()
    except ExportError as error:
        pytest.skip(error.problems[0].message)


class TestOnnxWeb(ExporterContract):
    name = "onnx-web"


class TestLitertWeb(ExporterContract):
    name = "litert-web"
