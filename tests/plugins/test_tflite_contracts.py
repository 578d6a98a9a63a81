"""The TFLite exporter keeps the contract in each of its precisions and tensor types."""

# ruff: noqa: RUF012 - a contract is set up by the attributes of its class

from __future__ import annotations

import pytest

from edgeopt.plugins.declarations import ExporterPlugin, Numerics, PassPlugin, QuantizerPlugin
from edgeopt.plugins.registry import Registry, load_registry
from edgeopt.recipe.lookup import resolve
from edgeopt.testing import ExporterContract, pass_context, tiny_data, tiny_model


class TestTflite(ExporterContract):
    name = "tflite"
    test_each_accelerator_gives_a_verdict_on_each_operator = None  # asked about int8 below


class TestTfliteFloat16(ExporterContract):
    name = "tflite"
    test_each_accelerator_gives_a_verdict_on_each_operator = None
    options = {"precision": "float16"}
    takes_int8 = False
    test_takes_a_program_of_two_outputs = None  # as the same exporter does without these options


class TestTfliteDynamicInt8(ExporterContract):
    name = "tflite"
    test_each_accelerator_gives_a_verdict_on_each_operator = None
    options = {"precision": "dynamic-int8"}
    tolerance = 0.02  # ranges are taken anew for each image
    takes_int8 = False
    test_takes_a_program_of_two_outputs = None  # as the same exporter does without these options


@pytest.fixture(scope="module")
def int8_program(tmp_path_factory):
    """A small network, quantized by `ptq`."""
    ptq = resolve(PassPlugin, "ptq", {}, load_registry())
    data = tiny_data()
    return ptq.plugin.apply(tiny_model(data), ptq.options, pass_context(tmp_path_factory.mktemp("ptq"), data))


class TestTfliteInt8(ExporterContract):
    name = "tflite"
    tolerance = 0.05

    @pytest.fixture(scope="class")
    @classmethod
    def state(cls, int8_program):
        return int8_program


class TestTfliteInt8Tensors(TestTfliteInt8):
    options = {"quantized_io": "int8"}


class TestTfliteUint8Tensors(TestTfliteInt8):
    options = {"quantized_io": "uint8", "precision": "auto"}


@pytest.mark.parametrize(
    ("options", "quantized", "named"),
    [
        ({"precision": "float16"}, True, ["precision"]),
        ({"precision": "dynamic-int8"}, True, ["precision"]),
        ({"precision": "weight-only-int8"}, False, []),
        ({"precision": "auto"}, False, ["precision"]),
        ({"precision": "auto", "quantized_io": "int8"}, True, []),
        ({"quantized_io": "uint8"}, False, ["quantized_io"]),
        ({}, True, []),
        ({}, False, []),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(
    registry: Registry, options: dict[str, str], quantized: bool, named: list[str]
) -> None:
    use = resolve(ExporterPlugin, "tflite", options, registry)
    quantizers = (registry.get(QuantizerPlugin, "xnnpack"),) if quantized else ()
    assert [problem.option for problem in use.plugin.check(use.options, Numerics(quantizers))] == named


def test_the_float_file_is_the_baseline_of_every_other(registry: Registry) -> None:
    use = resolve(ExporterPlugin, "tflite", {"precision": "auto", "quantized_io": "int8"}, registry)
    assert use.plugin.float_options(use.options) == resolve(ExporterPlugin, "tflite", {}, registry).options
