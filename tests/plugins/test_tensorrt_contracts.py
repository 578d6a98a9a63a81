"""The quantizer and the exporters for TensorRT keep edgeopt's contracts."""

# ruff: noqa: RUF012 - a contract is set up by the attributes of its class

from __future__ import annotations

import pytest

from edgeopt.plugins.declarations import PassPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve
from edgeopt.testing import ExporterContract, QuantizerContract, pass_context, tiny_data, tiny_model


class TestTensorRtQuantizer(QuantizerContract):
    name = "tensorrt"


class TestTensorRtQuantizerWithoutResiduals(QuantizerContract):
    name = "tensorrt"
    options = {"observer": "minmax", "residual": False}


class TestTensorRt(ExporterContract):
    name = "tensorrt"


@pytest.fixture(scope="module")
def int8_program(tmp_path_factory):
    """A small network, quantized by `ptq` as TensorRT wants it."""
    ptq = resolve(PassPlugin, "ptq", {"quantizer": "tensorrt"}, load_registry())
    data = tiny_data()
    return ptq.plugin.apply(tiny_model(data), ptq.options, pass_context(tmp_path_factory.mktemp("ptq"), data))


class TestTensorRtRtxInt8(ExporterContract):
    """An int8 program: its steps are 1/255 of a range, and kernels may round half a step another way."""

    name = "tensorrt-rtx"
    options = {"batch": 2}
    tolerance = 0.05

    @pytest.fixture(scope="class")
    @classmethod
    def state(cls, int8_program):
        return int8_program
