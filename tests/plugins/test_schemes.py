"""What a quantizer says of its numerics decides alike at every exporter."""

from __future__ import annotations

import pytest

from edgeopt.errors import PluginError
from edgeopt.plugins import ExporterPlugin, Numerics, Options, QuantizerPlugin, Scheme
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve

EXPORTERS = (
    ("executorch", {}),
    ("tflite", {}),
    ("tensorrt", {}),
    ("tensorrt-rtx", {}),
    ("onnx", {"target": "tensorrt"}),
)


def quantizer(**scheme: str) -> QuantizerPlugin:
    return QuantizerPlugin("mine", "Mine.", Options, build=lambda options, qat: None, **scheme)


def refused(exporter: str, options: dict[str, str], plugin: QuantizerPlugin) -> list[str]:
    use = resolve(ExporterPlugin, exporter, options, load_registry())
    return [f"{problem.message} / {problem.hint}" for problem in use.plugin.check(use.options, Numerics((plugin,)))]


def test_a_scheme_may_be_given_as_its_text() -> None:
    assert quantizer(scheme="int8-affine").scheme is Scheme.INT8_AFFINE
    assert quantizer(scheme=Scheme.OTHER).scheme is Scheme.OTHER
    assert quantizer().scheme is quantizer(scheme="").scheme is Scheme.UNKNOWN


def test_a_scheme_that_there_is_not_is_an_error_that_lists_them() -> None:
    with pytest.raises(PluginError, match="there is no scheme 'int8-symetric'") as error:
        quantizer(scheme="int8-symetric")
    assert "int8-symmetric-inputs" in str(error.value)


@pytest.mark.parametrize(("exporter", "options"), EXPORTERS)
def test_a_quantizer_that_says_nothing_is_refused_by_all_that_choose(exporter: str, options: dict[str, str]) -> None:
    (problem,) = refused(exporter, options, quantizer())
    assert "'mine' does not say its scheme" in problem
    assert "say so with `scheme`" in problem


@pytest.mark.parametrize(("exporter", "options"), EXPORTERS)
def test_numerics_of_ones_own_are_refused_by_all_that_choose(exporter: str, options: dict[str, str]) -> None:
    (problem,) = refused(exporter, options, quantizer(scheme="other"))
    assert "is of scheme 'other'" in problem


@pytest.mark.parametrize(("exporter", "options"), EXPORTERS)
def test_every_exporter_takes_what_has_no_zero_points(exporter: str, options: dict[str, str]) -> None:
    assert not refused(exporter, options, quantizer(scheme="int8-symmetric"))


def test_a_name_that_begins_like_another_is_not_taken_for_it() -> None:
    assert refused("executorch", {}, quantizer(scheme="int8-symmetric-inputs"))
    assert not refused("tensorrt", {}, quantizer(scheme="int8-symmetric-inputs"))


def test_onnx_runtime_takes_any() -> None:
    assert not refused("onnx", {}, quantizer())
