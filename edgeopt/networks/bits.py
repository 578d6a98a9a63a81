"""How many bits each layer of a program needs: for its weights, and for the activations that go into it.

A quantized program keeps its integers in int8 and says with `quant_min` and `quant_max` how many of them are used: -7
to 7 takes four bits, -128 to 127 eight. Runtimes saturate where int8 ends, so exporters ask here what a file must do
besides. Activations may be int16 as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeopt.networks.layers import LayerKind, layer_call, operator_name

if TYPE_CHECKING:  # torch is heavy: whoever has a program has imported it already
    from torch.export import ExportedProgram
    from torch.fx import Node

CONTAINER_BITS = 8
"""Bits of int8, which holds the integers of a quantized program."""
WIDE_BITS = 16
"""Bits of int16, which holds activations where weights stay int8: "16x8"."""
FLOAT_BITS = 32
"""In place of bits: what stays in float."""
PACKED_BITS = 4
"""Weights of so many bits or fewer are packed two to a byte where the format has such a type."""

_LAYOUT = ("aten.t.", "aten.transpose", "aten.permute", "aten.view", "aten.reshape", "aten.unsqueeze", "aten.squeeze")
#: Operators whose results lie between the smallest and the largest of their inputs, or are zero.
_WITHIN = (
    *_LAYOUT,
    "aten.flatten",
    "aten.max_pool",
    "aten.adaptive_avg_pool",
    "aten.avg_pool",
    "aten.mean",
    "aten.relu",
    "aten.dropout",
)
_QUANTIZE, _DEQUANTIZE = "quantized_decomposed.quantize_per_", "quantized_decomposed.dequantize_per_"
_PER_CHANNEL = ("quantize_per_channel", "dequantize_per_channel")


@dataclass(frozen=True)
class LayerBits:
    """Bits of a convolution or linear layer, each None where it is float; `name` is that of its module."""

    name: str
    weights: int | None
    activations: int | None
    is_linear: bool = False
    is_transposed: bool = False

    @property
    def is_packed(self) -> bool:
        """Whether two weights fit into a byte."""
        return self.weights is not None and self.weights <= PACKED_BITS


@dataclass(frozen=True)
class Rounding:
    """value = scale * (integer - zero_point), with integers from `low` to `high`; of one scale for all values."""

    scale: float
    zero_point: int
    low: int
    high: int

    @property
    def bits(self) -> int:
        """Bits that the integers need."""
        return bits_between(self.low, self.high)

    @property
    def values(self) -> tuple[float, float]:
        """The smallest and the largest value that there is an integer for."""
        return self.scale * (self.low - self.zero_point), self.scale * (self.high - self.zero_point)


def bits_between(low: int, high: int) -> int:
    """Bits that the integers from `low` to `high` need: four for -7 to 7, and for -8 to 7."""
    return (high - low).bit_length()


def weight_range(bits: int) -> tuple[int, int]:
    """The smallest and the largest integer of a weight: -7 and 7 for four bits, so that a scale may change its sign."""
    most = 2 ** (bits - 1) - 1
    return -most, most


def activation_range(bits: int) -> tuple[int, int]:
    """The smallest and the largest integer of an activation: -8 and 7 for four bits."""
    half = 2 ** (bits - 1)
    return -half, half - 1


def layer_bits(program: ExportedProgram) -> tuple[LayerBits, ...]:
    """The bits of each layer with a weight, in the order of execution, of a float or quantized
    program, folded or not.
    """
    return tuple(
        LayerBits(
            _layer_name(program, weight) or layer.name,
            bits_behind(weight),
            bits_behind(value),
            is_linear=kind is LayerKind.LINEAR,
            is_transposed=kind is LayerKind.TRANSPOSED,
        )
        for layer, value, weight, kind in _layers(program)
    )


def float_layers_of_integers(program: ExportedProgram) -> tuple[tuple[Node, Node], ...]:
    """The layers of a quantized program that stay float on integers computed from the image, each with that
    activation.
    """
    constants = _constants(program)
    return tuple(
        (layer, value)
        for layer, value, weight, _ in _layers(program)
        if bits_behind(weight) is None and bits_behind(value) is not None and not _is_constant(value, constants)
    )


def has_wide_activations(program: ExportedProgram) -> bool:
    """Whether activations of a program are int16."""
    return any(layer.activations is not None and layer.activations > CONTAINER_BITS for layer in layer_bits(program))


def packed_layers(program: ExportedProgram) -> tuple[LayerBits, ...]:
    """The layers whose weights take four bits or fewer."""
    return tuple(each for each in layer_bits(program) if each.is_packed)


def narrow_activations(program: ExportedProgram) -> tuple[tuple[Node, Rounding], ...]:
    """Each quantize node of an activation that uses fewer than eight bits, with its rounding, in the order of
    execution.
    """
    constants = _constants(program)
    quantizing = [node for node in program.graph.nodes if operator_name(node).startswith(_QUANTIZE)]
    roundings = [(node, rounding_of(node)) for node in quantizing if not _is_constant(node, constants)]
    return tuple((node, each) for node, each in roundings if each is not None and each.bits < CONTAINER_BITS)


def saturating_activations(program: ExportedProgram) -> tuple[tuple[Node, Rounding], ...]:
    """Those of `narrow_activations` whose input can lie beyond their range."""
    narrow = narrow_activations(program)
    return tuple((node, each) for node, each in narrow if not _is_within(node.args[0], each))  # type: ignore[arg-type]


def rounding_of(node: Node) -> Rounding | None:
    """What a quantize or dequantize node of one scale does; None for one with a scale for each channel."""
    if any(part in operator_name(node) for part in _PER_CHANNEL):
        return None
    _, scale, zero_point, low, high = node.args[:5]
    return Rounding(float(scale), int(zero_point), int(low), int(high))  # type: ignore[arg-type]  # fx has no types


def spell_out_saturation(program: ExportedProgram) -> int:
    """Clamps each activation of `saturating_activations` in float, in front of its quantize node; returns how many
    there are.

    Works in place, and is exact: rounding is monotone, so that what lies beyond the bounds becomes the integers at the
    ends. A ReLU or another clamp before it that nothing else reads becomes one with it.
    """
    import torch

    aten = torch.ops.aten
    narrow = saturating_activations(program)
    for quantize, rounding in narrow:
        low, high = rounding.values
        source: Node = quantize.args[0]  # type: ignore[assignment]  # fx has no types
        bounds = _clamp_bounds(source) if len(source.users) == 1 else None
        if bounds is not None and max(low, bounds[0]) <= min(high, bounds[1]):
            low, high = max(low, bounds[0]), min(high, bounds[1])
            source = source.args[0]  # type: ignore[assignment]
        with program.graph.inserting_before(quantize):
            clamp = program.graph.call_function(aten.clamp.default, (source, low, high))
        clamp.meta = dict(source.meta)
        quantize.replace_input_with(quantize.args[0], clamp)  # type: ignore[arg-type]
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    return len(narrow)


def upstream(node: Node) -> Iterator[Node]:
    """A node and all that it depends on, each once."""
    seen, waiting = {node}, [node]
    while waiting:
        reached = waiting.pop()
        yield reached
        waiting += [each for each in reached.all_input_nodes if each not in seen]
        seen.update(reached.all_input_nodes)


def _is_within(node: Node, rounding: Rounding) -> bool:
    """Whether no value of `node` lies beyond the range of `rounding`, because it was rounded to it before."""
    while operator_name(node).startswith(_WITHIN):
        node = node.all_input_nodes[0]
    if not operator_name(node).startswith(_DEQUANTIZE):
        return False
    before = rounding_of(node)
    return (
        before is not None
        and (before.scale, before.zero_point) == (rounding.scale, rounding.zero_point)
        and rounding.low <= before.low
        and before.high <= rounding.high
    )


def _clamp_bounds(node: Node) -> tuple[float, float] | None:
    name = operator_name(node)
    if name.startswith(("aten.relu.", "aten.relu_.")):
        return 0.0, math.inf
    if name.startswith("aten.relu6"):
        return 0.0, 6.0
    if name.startswith(("aten.hardtanh.", "aten.hardtanh_.", "aten.clamp.default", "aten.clamp_.default")):
        ends = (-1.0, 1.0) if "hardtanh" in name else (-math.inf, math.inf)
        given = [*node.args[1:3], None, None][:2]
        low, high = (end if one is None else one for one, end in zip(given, ends, strict=True))
        if isinstance(low, (int, float)) and isinstance(high, (int, float)):
            return float(low), float(high)
    return None


def _layers(program: ExportedProgram) -> Iterator[tuple[Node, Node, Node, LayerKind]]:
    """Each layer whose weight is a constant, with its activation, its weight and its kind."""
    constants = _constants(program)
    for layer in filter(None, map(layer_call, program.graph.nodes)):
        if _is_constant(layer.weight, constants):
            yield layer.node, layer.input, layer.weight, layer.kind


def _constants(program: ExportedProgram) -> set[str]:
    signature = program.graph_signature
    return {node.name for node in program.graph.nodes if node.op == "placeholder"} - set(signature.user_inputs)


def _is_constant(node: Node, constants: set[str]) -> bool:
    """Whether its value is the same for every image."""
    return all(each.all_input_nodes or each.name in constants for each in upstream(node))


def bits_behind(node: Node) -> int | None:
    """The bits to which a value was rounded, perhaps before it was brought to another shape; None where it was not."""
    node = _through_layout(node)
    name = operator_name(node)
    if not name.startswith(_DEQUANTIZE):
        return None
    first = 4 if any(part in name for part in _PER_CHANNEL) else 3
    low, high = node.args[first : first + 2]
    return bits_between(int(low), int(high))  # type: ignore[arg-type]  # fx has no types


def _through_layout(node: Node) -> Node:
    while operator_name(node).startswith(_LAYOUT):
        node = node.all_input_nodes[0]
    return node


def _layer_name(program: ExportedProgram, weight: Node) -> str:
    """The module that a weight belongs to; empty where the weight is no longer a parameter."""
    while weight.op != "placeholder" and weight.all_input_nodes:
        weight = weight.all_input_nodes[0]
    signature = program.graph_signature
    name = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}.get(weight.name, "")
    holder, _, attribute = name.rpartition(".")
    return holder if attribute == "weight" else ""
