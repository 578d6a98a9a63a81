"""Where a quantized program rounds: its layers, and other operators whose result is rounded.

```
input ─▶ q ─▶ dq ─▶ conv ─▶ relu ─▶ q ─▶ dq ─▶ …
         └ a point   └───── a point ────┘
```
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch.export import ExportedProgram
from torch.fx import Node

from edgeopt.networks.bits import bits_between
from edgeopt.networks.layers import LayerOperator, layer_operator, module_path, operator_name
from edgeopt.sensitivity.calls import Call, Code, calls_of
from edgeopt.sensitivity.network import layer_name

_QUANTIZE, _DEQUANTIZE = "quantized_decomposed.quantize_per_", "quantized_decomposed.dequantize_per_"
_ACTIVATIONS = (
    *("relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max", "leaky_relu", "hardswish", "hardsigmoid"),
    *("silu", "sigmoid", "gelu", "elu", "tanh", "batch_norm", "_native_batch_norm_legit_no_training"),
)
"""Operators that belong to the layer before them, where they alone read it."""
_MOVES = (
    *("view", "reshape", "flatten", "permute", "transpose", "contiguous", "clone", "slice", "select", "squeeze"),
    *("unsqueeze", "expand", "chunk", "split", "split_with_sizes", "getitem", "max_pool2d", "relu", "dropout"),
)
"""Operators that change no value that they pass on; with the range of what enters them they add nothing."""


@dataclass(frozen=True, eq=False)
class Point:
    """A layer with what follows it up to its end, or an operator whose result is rounded.

    `calls` lead from the operator itself to the end; the network's input has none. `end` is the value, `quantize` the
    node that rounds it, None where it stays in float, and `dequantize` those that read the integers.
    """

    name: str
    kind: str
    module: str
    layer: LayerOperator | None
    calls: tuple[Call, ...]
    end: Node
    quantize: Call | None
    dequantize: tuple[Call, ...]
    weight_bits: int | None = None
    per_channel: bool | None = None

    @property
    def activation_bits(self) -> int | None:
        """Bits of the rounded result."""
        return None if self.quantize is None else bits_between(*limits(self.quantize))

    @property
    def shown(self) -> Node:
        """The node whose value a file shows: the end, or what its integers stand for."""
        return self.dequantize[0].node if self.dequantize else self.end

    @property
    def range(self) -> tuple[float, float] | None:
        """What the integers of the result stand for."""
        if self.quantize is None or "per_tensor" not in operator_name(self.quantize.node):
            return None
        scale, zero = float(self.quantize.args[1]), int(self.quantize.args[2])
        low, high = limits(self.quantize)
        return (low - zero) * scale, (high - zero) * scale


@dataclass(frozen=True, eq=False)
class RoundedProgram:
    """A quantized program of one input as calls, its points in order, and its constants as they are
    without any rounding.
    """

    code: Code
    points: tuple[Point, ...]
    float_constants: Mapping[Node, Any]

    @cached_property
    def readers(self) -> Mapping[Node, tuple[Call, ...]]:
        """Who reads each value."""
        return _readers(self.code)

    @cached_property
    def places(self) -> Mapping[Node, int]:
        """The place of each call."""
        return {call.node: place for place, call in enumerate(self.code.calls)}

    def behind(self, value: Node) -> tuple[Call, ...]:
        """The calls that depend on a value, in order."""
        changed, found = {value}, []
        for call in self.code.calls:
            if not changed.isdisjoint(call.reads):
                changed.add(call.node)
                found.append(call)
        return tuple(found)


def rounded_program(program: ExportedProgram, prefix: str = "") -> RoundedProgram:
    """A quantized program by its points, whose names are without `prefix`.

    Raises `ExportError` for a program of several inputs.
    """
    code = calls_of(program)
    return RoundedProgram(code, tuple(_points(code, prefix)), _without_rounding(code))


def is_rounding(call: Call) -> bool:
    """Whether a call quantizes or dequantizes."""
    return operator_name(call.node).startswith((_QUANTIZE, _DEQUANTIZE))


def limits(quantize: Call) -> tuple[int, int]:
    """The least and the largest integer of a quantize call."""
    low, high = quantize.args[4:6] if "per_channel" in operator_name(quantize.node) else quantize.args[3:5]
    return int(low), int(high)


def _points(code: Code, prefix: str) -> Iterator[Point]:
    readers = _readers(code)
    producers = {call.node: call for call in code.calls}
    taken: set[Node] = set()
    found: dict[Node, Point] = {}
    for call in code.calls:
        operator = layer_operator(str(call.operator), call.node)
        if operator is None or call.args[operator.weight] not in code.constants:
            continue
        chain = [call]
        while (following := _activation_behind(chain[-1].node, readers)) is not None:
            chain.append(following)
        end = chain[-1].node
        quantize, dequantize = _rounding_of(end, readers)
        weight = call.args[operator.weight]
        bits, per_channel = _weight_bits(weight)
        name = layer_name(weight, call.node).removeprefix(prefix)
        found[end] = Point(
            name=name,
            kind=operator.kind.value,
            module=name,
            layer=operator,
            calls=tuple(chain),
            end=end,
            quantize=quantize,
            dequantize=dequantize,
            weight_bits=bits,
            per_channel=per_channel,
        )
        taken.add(end)
    for call in code.calls:
        if not operator_name(call.node).startswith(_QUANTIZE):
            continue
        end = call.args[0]
        if end in taken:
            continue
        taken.add(end)
        producer = producers.get(end)
        quantize, dequantize = _rounding_of(end, readers)
        if producer is not None and _only_moves(producer, quantize, producers):
            continue
        kind = "input" if producer is None else _kind(end)
        module = "" if producer is None else _module(end)
        name = "input" if producer is None else f"{module}: {kind}" if module else kind
        found[end] = Point(name, kind, module, None, (producer,) if producer else (), end, quantize, dequantize)
    order = {call.node: place for place, call in enumerate(code.calls)}
    names: dict[str, int] = {}
    for end in sorted(found, key=lambda node: order.get(node, -1)):
        point = found[end]
        names[point.name] = names.get(point.name, 0) + 1
        if names[point.name] > 1:
            point = replace(point, name=f"{point.name} ({names[point.name]})")
        yield point


def _readers(code: Code) -> dict[Node, tuple[Call, ...]]:
    found: dict[Node, list[Call]] = {}
    for call in code.calls:
        for node in call.reads:
            found.setdefault(node, []).append(call)
    return {node: tuple(calls) for node, calls in found.items()}


def _activation_behind(node: Node, readers: Mapping[Node, tuple[Call, ...]]) -> Call | None:
    """The activation function or BatchNorm that alone reads a layer's result before it is rounded."""
    reading = readers.get(node, ())
    if len(reading) != 1 or reading[0].args[:1] != (node,):
        return None
    return reading[0] if _kind(reading[0].node) in _ACTIVATIONS else None


def _rounding_of(end: Node, readers: Mapping[Node, tuple[Call, ...]]) -> tuple[Call | None, tuple[Call, ...]]:
    """The call that rounds a value, and all that read integers of the same steps."""
    quantizing = [call for call in readers.get(end, ()) if operator_name(call.node).startswith(_QUANTIZE)]
    for first in quantizing:
        same = [call for call in quantizing if call.args[1:] == first.args[1:]]
        reading = [reader for call in same for reader in readers.get(call.node, ())]
        if reading and all(operator_name(reader.node).startswith(_DEQUANTIZE) for reader in reading):
            return first, tuple(reading)
    return None, ()


def _weight_bits(weight: Node) -> tuple[int | None, bool | None]:
    """Bits of a weight, 32 where it is not rounded, and whether each channel has a scale of its own."""
    waiting = [weight]
    while waiting:
        node = waiting.pop()
        if operator_name(node).startswith(_QUANTIZE):
            per_channel = "per_channel" in operator_name(node)
            low, high = node.args[4:6] if per_channel else node.args[3:5]
            return bits_between(int(str(low)), int(str(high))), per_channel
        waiting += node.all_input_nodes
    return 32, None


def _only_moves(call: Call, quantize: Call | None, producers: Mapping[Node, Call]) -> bool:
    """Whether a call passes on values that are rounded already, in the same steps, perhaps through others like it."""
    source: Call | None = call
    while source is not None and not is_rounding(source):
        if _kind(source.node) not in _MOVES or len(source.reads) != 1:
            return False
        source = producers.get(next(iter(source.reads)))
    return source is not None and quantize is not None and source.args[1:3] == quantize.args[1:3]


def _kind(node: Node) -> str:
    """What an operator is called: "conv2d" for `aten.conv2d.default`."""
    parts = operator_name(node).split(".")
    return parts[1].rstrip("_") if len(parts) > 1 else getattr(node.target, "__name__", node.name)


def _module(node: Node) -> str:
    return module_path(node).removeprefix("L['self'].")


def _without_rounding(code: Code) -> dict[Node, Any]:
    """The constants, with quantize and dequantize left out."""
    from torch.fx.node import map_arg

    found: dict[Node, Any] = {}
    for node, value in code.constants.items():
        if node.op != "call_function":
            found[node] = value
        elif operator_name(node).startswith((_QUANTIZE, _DEQUANTIZE)):
            found[node] = found[node.all_input_nodes[0]]
        else:
            call: Any = node.target
            args, kwargs = map_arg((node.args, node.kwargs), found.__getitem__)
            found[node] = call(*args, **kwargs)
    return found
