"""The Core ML exporter keeps the contract. In the place of Core ML, which is on Apple's systems alone, stands an
interpreter of its files; all else is what runs on a Mac.
"""

from __future__ import annotations

import pytest
from mil_interpreter import Interpreted

from edgeopt.plugins import Bits
from edgeopt.plugins.declarations import ExporterPlugin, Numerics, QuantizerPlugin
from edgeopt.plugins.registry import Registry
from edgeopt.recipe.lookup import resolve
from edgeopt.testing import ExporterContract
from edgeopt_coreml import predictor


class TestCoreMl(ExporterContract):
    name = "coreml"
    fixed_batch = 1

    @pytest.fixture(autouse=True)
    def interpreted(self, monkeypatch):
        monkeypatch.setattr(predictor, "load", Interpreted)
        monkeypatch.setattr(predictor, "not_run", lambda version: "")


@pytest.mark.parametrize(
    ("options", "quantizer", "named"),
    [
        ({}, "xnnpack", []),
        ({"arithmetic": "float32", "deployment_target": "iOS18"}, "tensorrt", []),
        ({"precision": "float16"}, None, []),
        ({"precision": "float16"}, "xnnpack", ["precision"]),
        ({"precision": "weight-only-int8"}, "xnnpack", ["precision"]),
        ({"precision": "float16", "arithmetic": "float32"}, None, ["arithmetic"]),
        ({"deployment_target": "iOS16"}, "xnnpack-symmetric", ["deployment_target"]),
        ({"deployment_target": "iOS16", "precision": "weight-only-int8"}, None, []),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(
    registry: Registry, options: dict[str, str], quantizer: str | None, named: list[str]
) -> None:
    use = resolve(ExporterPlugin, "coreml", options, registry)
    quantizers = (registry.get(QuantizerPlugin, quantizer),) if quantizer else ()
    assert [problem.option for problem in use.plugin.check(use.options, Numerics(quantizers))] == named


@pytest.mark.parametrize(("bits", "problems"), [(Bits(8, 8), 0), (Bits(4, 8), 0), (Bits(8, 4), 1)])
def test_activations_of_fewer_than_eight_bits_are_refused(registry: Registry, bits: Bits, problems: int) -> None:
    use = resolve(ExporterPlugin, "coreml", {}, registry)
    numerics = Numerics((registry.get(QuantizerPlugin, "xnnpack"),), bits=bits)
    assert len(list(use.plugin.check(use.options, numerics))) == problems


def test_numerics_that_core_ml_does_not_have_are_refused(registry: Registry) -> None:
    use = resolve(ExporterPlugin, "coreml", {}, registry)

    def build(options: object, qat: bool) -> None:
        raise AssertionError

    own = QuantizerPlugin("own", "Numerics of one's own.", use.plugin.options, build=build, scheme="other")
    (problem,) = use.plugin.check(use.options, Numerics((own,)))
    assert "Core ML does not take" in problem.message


@pytest.mark.parametrize("precision", ["float16", "weight-only-int8"])
def test_the_float_file_is_the_baseline_of_what_the_exporter_makes(registry: Registry, precision: str) -> None:
    use = resolve(ExporterPlugin, "coreml", {"precision": precision}, registry)
    assert use.plugin.float_options(use.options) == resolve(ExporterPlugin, "coreml", {}, registry).options
