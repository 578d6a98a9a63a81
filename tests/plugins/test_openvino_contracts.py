"""The OpenVINO exporter keeps the contract in each of its precisions."""

# ruff: noqa: RUF012 - a contract is set up by the attributes of its class

from __future__ import annotations

import pytest

from edgeopt.plugins.declarations import ExporterPlugin, Numerics, QuantizerPlugin
from edgeopt.plugins.registry import Registry
from edgeopt.recipe.lookup import resolve
from edgeopt.testing import ExporterContract


class TestOpenVino(ExporterContract):
    name = "openvino"


class TestOpenVinoFloat16(ExporterContract):
    name = "openvino"
    options = {"precision": "float16"}
    test_takes_a_program_of_two_outputs = None  # as the same exporter does without these options
    test_takes_a_program_of_one_image = None
    test_takes_an_int8_program = None
    test_takes_pixels = None
    test_half_a_file_is_refused = None
    test_same_program_gives_the_same_bytes = None

    def test_weights_are_half_as_large(self, exported, state):
        weights = sum(parameter.numel() for parameter in state.program.parameters())
        assert exported[0].with_suffix(".bin").stat().st_size < 3 * weights


@pytest.mark.parametrize(
    ("options", "quantized", "named"),
    [({"precision": "float16"}, True, ["precision"]), ({"precision": "float16"}, False, []), ({}, True, [])],
)
def test_what_does_not_fit_is_refused_before_anything_runs(
    registry: Registry, options: dict[str, str], quantized: bool, named: list[str]
) -> None:
    use = resolve(ExporterPlugin, "openvino", options, registry)
    quantizers = (registry.get(QuantizerPlugin, "xnnpack"),) if quantized else ()
    assert [problem.option for problem in use.plugin.check(use.options, Numerics(quantizers))] == named


def test_the_float_file_is_the_baseline_of_a_float16_one(registry: Registry) -> None:
    use = resolve(ExporterPlugin, "openvino", {"precision": "float16"}, registry)
    assert use.plugin.float_options(use.options) == resolve(ExporterPlugin, "openvino", {}, registry).options
