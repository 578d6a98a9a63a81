"""The exporters of the browser keep the contract, in headless Chromium."""

from __future__ import annotations

import pytest
from browser_runtimes import needs

from edgeopt.testing import ExporterContract
from edgeopt_web.runtime import litert_web, onnx_web


@pytest.fixture(scope="module", autouse=True)
def runtimes() -> None:
    needs(onnx_web, litert_web)


class TestOnnxWeb(ExporterContract):
    name = "onnx-web"


class TestLitertWeb(ExporterContract):
    name = "litert-web"
