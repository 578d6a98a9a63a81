"""Which line of a recipe mends a layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgeopt.arrays import Json
from edgeopt.report.figures import percent
from edgeopt.why.table import Advice, LayerNoise, Part, Why

_MOST = 3
_SHARE = 0.05
"""Of what all layers do to the outputs: what does less is not worth a line."""
_GOOD_DB = 40.0
"""Outputs that are so far above their noise are what eight bits give at best."""
_CLIPPING = 0.5
"""Share of a range's error that values beyond it make, from which on the range is too narrow."""
_IDLE = 0.25
"""Share of its range that values use at least, if the range fits them."""
_UNEVEN = 0.1
"""Peak of the middle channel over that of the largest, below which one range for all of them is a poor one."""
_COARSE_DB = 30.0
"""Weights of eight bits are further above their rounding than this, unless a few are far larger than the rest."""
_EIGHT = 8
_LAYER_BITS = "layer_bits"


def advice(why: Why, recipe: Mapping[str, Json]) -> Why:
    """`why` with a line for each of the layers that do most to the outputs, as far as a line can help.

    `recipe` has every option written out.
    """
    quantizing = _quantizing(recipe)
    if quantizing is None or (why.answers.db is None or why.answers.db > _GOOD_DB):
        return why
    shown = [layer for layer in why.worst_first if why.share_at_output(layer) >= _SHARE][:_MOST]
    found: dict[str, Advice] = {}
    for layer in shown:
        each = _for_layer(layer, quantizing, why)
        found.setdefault(each.line or each.reason, each)
    return replace(why, advice=_joined(tuple(found.values())))


def _joined(given: tuple[Advice, ...]) -> tuple[Advice, ...]:
    """Changes of one table of single layers as one line, since a recipe has that table once."""
    tables = [each for each in given if each.key[-1:] == (_LAYER_BITS,)]
    if len(tables) < 2:
        return given
    value: dict[str, Any] = {}
    for each in tables:
        value |= each.value
    first = tables[0]
    joined = replace(
        first,
        layer=", ".join(each.layer for each in tables),
        reason="; ".join(dict.fromkeys(each.reason for each in tables)),
        line=_layer_bits(value),
        value=value,
    )
    return tuple(joined if each is first else each for each in given if each is first or each not in tables)


def _layer_bits(value: Mapping[str, Any]) -> str:
    written = ", ".join(f'"{name}" = {_toml(each)}' for name, each in value.items())
    return f"{_LAYER_BITS} = {{ {written} }}"


@dataclass(frozen=True)
class _Quantizing:
    """The pass of a recipe that rounds: its place, its options, and the resolved recipe."""

    place: int
    options: Mapping[str, Any]
    recipe: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The pass's plugin."""
        return str(self.options["use"])

    def line(self, layer: str, reason: str, option: str, value: Any, written: str) -> Advice:
        """An option of the pass."""
        return Advice(
            layer=layer,
            reason=reason,
            table=f'[[passes]] with use = "{self.name}"',
            line=f"{option} = {written}",
            key=("passes", self.place, option),
            value=value,
        )

    def bits(self, layer: str, reason: str, names: tuple[str, ...], bits: int | str) -> Advice:
        """Bits of single layers, beside those that the recipe names already."""
        value = {**self.options.get("layer_bits", {}), **dict.fromkeys(names, bits)}
        return self.line(layer, reason, _LAYER_BITS, value, _layer_bits(value).partition(" = ")[2])


def _quantizing(recipe: Mapping[str, Any]) -> _Quantizing | None:
    """The last pass that takes a quantizer."""
    found = [_Quantizing(place, step, recipe) for place, step in enumerate(recipe["passes"]) if "quantizer" in step]
    return found[-1] if found else None


def _for_layer(layer: LayerNoise, quantizing: _Quantizing, why: Why) -> Advice:
    match layer.blame:
        case Part.WEIGHTS:
            return _for_weights(layer, quantizing, why)
        case Part.ACTIVATION:
            return _for_activation(layer, quantizing)
        case _:
            return _for_kernel(layer, quantizing, why)


def _for_weights(layer: LayerNoise, quantizing: _Quantizing, why: Why) -> Advice:
    name, bits = _recipe_name(layer), layer.weight_bits or _EIGHT
    if bits < _EIGHT:
        edges = {each.name for each in (_first(why), _last(why)) if each}
        if layer.name in edges and quantizing.options.get("edge_bits", _EIGHT) < _EIGHT:
            reason = f"weights of {bits} bits in the first or the last layer"
            return quantizing.line(layer.name, reason, "edge_bits", _EIGHT, "8")
        return quantizing.bits(layer.name, f"weights of {bits} bits", (name,), _EIGHT)
    quantizer = quantizing.options.get("quantizer")
    if layer.per_channel is False and isinstance(quantizer, Mapping) and quantizer.get("per_channel") is False:
        value = {**quantizer, "per_channel": True}
        written = ", ".join(f"{option} = {_toml(each)}" for option, each in value.items() if each is not None)
        reason = "all of its channels share one scale, and the largest weight sets it"
        return quantizing.line(layer.name, reason, "quantizer", value, f"{{ {written} }}")
    reason = "eight bits cost its weights no more than usual, and the outputs mind it"
    if layer.weights.db is not None and layer.weights.db < _COARSE_DB:
        reason = "some of its weights are so large that eight bits leave few steps to the others of their channel"
    return quantizing.bits(layer.name, reason, (name,), "float")


def _for_activation(layer: LayerNoise, quantizing: _Quantizing) -> Advice:
    bits = layer.activation_bits or _EIGHT
    readers = tuple(name.partition("#")[0] for name in layer.readers)
    if bits < _EIGHT and readers:
        reason = f"its result is rounded to {bits} bits, as the layers that read it are given {bits}"
        return quantizing.bits(layer.name, reason, readers, _EIGHT)
    if layer.clipping >= _CLIPPING:
        reason = (
            f"{percent(layer.clipped)} of its values are beyond the range that calibration saw: calibrate with more "
            "images"
        )
        return _calibration(layer.name, reason, quantizing)
    if layer.range is not None and (layer.seen[1] - layer.seen[0]) < _IDLE * (layer.range[1] - layer.range[0]):
        low, high = layer.range
        if layer.seen[0] >= 0 > low and _can_be_affine(quantizing):
            reason = "it has no values below zero, and half of its integers stand for such"
            return quantizing.line(layer.name, reason, "quantizer", "xnnpack", '"xnnpack"')
        reason = (
            f"its range goes from {low:.3g} to {high:.3g} and its values from {layer.seen[0]:.3g} to "
            f"{layer.seen[1]:.3g}: an odd image among those of the calibration has set it; calibrate with others"
        )
        return _calibration(layer.name, reason, quantizing)
    is_uneven = layer.is_layer and layer.spread is not None and layer.spread < _UNEVEN
    if is_uneven and quantizing.name == "ptq" and not quantizing.options.get("equalize", True):
        reason = "most of its channels are far smaller than the largest, whose range they share: scale them alike"
        return quantizing.line(layer.name, reason, "equalize", True, "true")
    way = "" if quantizing.name == "qat" else ": train with the rounding, by the pass qat"
    reason = f"its range fits its values, and the outputs mind the steps of eight bits{way}"
    return Advice(layer=layer.name, reason=reason)


def _for_kernel(layer: LayerNoise, quantizing: _Quantizing, why: Why) -> Advice:
    reason = f"the kernel of {why.runtime} computes something else than the program; in float it takes another kernel"
    if not layer.is_layer:
        text = f"the kernel of {why.runtime} computes something else than the program: export for another runtime"
        return Advice(layer=layer.name, reason=text)
    return quantizing.bits(layer.name, reason, (_recipe_name(layer),), "float")


def _calibration(name: str, reason: str, quantizing: _Quantizing) -> Advice:
    """More images to calibrate with, or a training, which sees many more."""
    shares = quantizing.recipe["dataset"].get("shares")
    share = shares.get("calibration") if isinstance(shares, Mapping) else None
    if quantizing.name != "ptq" or not isinstance(share, float) or share >= 0.5:
        return Advice(layer=name, reason=f"{reason}. Where there are no more, train with the rounding, by the pass qat")
    larger = min(0.5, round(4 * share, 3))
    return Advice(
        layer=name,
        reason=reason,
        table="[dataset.shares]",
        line=f"calibration = {larger:g}",
        key=("dataset", "shares", "calibration"),
        value=larger,
    )


def _can_be_affine(quantizing: _Quantizing) -> bool:
    """Whether the quantizer without zero points can give way to the one with them: not where TensorRT is served."""
    quantizer = quantizing.options.get("quantizer")
    name = quantizer.get("use") if isinstance(quantizer, Mapping) else quantizer
    return name == "xnnpack-symmetric" and all(each["use"] != "tensorrt" for each in quantizing.recipe["exports"])


def _recipe_name(layer: LayerNoise) -> str:
    """A layer's name as `layer_bits` takes it: that of a layer that is called several times."""
    return layer.name.partition("#")[0]


def _layers(why: Why) -> Iterator[LayerNoise]:
    return (layer for layer in why.layers if layer.is_layer)


def _first(why: Why) -> LayerNoise | None:
    return next(_layers(why), None)


def _last(why: Why) -> LayerNoise | None:
    return next(reversed([*_layers(why)]), None)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else str(value)
