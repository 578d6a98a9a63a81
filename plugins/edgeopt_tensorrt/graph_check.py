"""Tells without TensorRT whether it takes an ONNX graph, and computes the quantized layers in int8.

The rules are TensorRT's own for explicit quantization, and what TensorRT for RTX 1.7 was seen to do. It refuses any
zero point but 0, and an int32 DequantizeLinear. It reads uint8 as int8, with no more than a warning. It builds a layer
in float without a word when the scale of an activation has one dimension, or that of a weight lies along another axis
than its output channels. Of operators that are not ONNX's, the plugin EfficientNMS is known by its contract.
Sources: https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html and
https://github.com/NVIDIA/TensorRT/tree/main/plugin/efficientNMSPlugin
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, numpy_helper

from edgeopt.plugins import ExportError, Problem
from edgeopt_onnx.operators import LAYOUT, WEIGHTED
from edgeopt_tensorrt.bundle import PLUGIN

_UNKNOWN_OPERATOR = re.compile(r"QLinear\w+|\w+Integer|DynamicQuantizeLinear|QGemm|QAttention")
_SYMMETRIC = 'quantize with quantizer = "tensorrt"'
#: What EfficientNMS wants to be told, each with the least and the most that it takes.
_OF_PLUGIN: dict[str, tuple[type[int] | type[float], float, float]] = {
    "score_threshold": (float, 0.0, math.inf),
    "iou_threshold": (float, math.nextafter(0.0, 1.0), math.inf),
    "max_output_boxes": (int, 1, math.inf),
    "background_class": (int, -math.inf, math.inf),
    "score_activation": (int, 0, 1),
    "box_coding": (int, 0, 1),
}
_PLUGIN_HINT = "see the plugin's README in NVIDIA's TensorRT"


@dataclass(frozen=True)
class GraphLayer:
    """A node with a constant weight: the name of its node, and that of its module where it is known."""

    node: str
    module: str


def require_tensorrt(model: onnx.ModelProto, in_float: Collection[str] = ()) -> None:
    """Raises `ExportError` with every problem of `find_problems`."""
    problems = find_problems(model, in_float)
    if problems:
        raise ExportError(*problems)


def find_problems(model: onnx.ModelProto, in_float: Collection[str] = ()) -> tuple[Problem, ...]:
    """What TensorRT refuses, computes otherwise, or leaves in float although it is quantized; in the graph's order.

    `in_float` are the modules of layers that were left in float on purpose, and may read what was rounded for others.
    """
    graph = _Graph(model.graph, in_float)
    return tuple(problem for node in model.graph.node for problem in _problems_of(node, graph))


def needs_plugin(model: onnx.ModelProto) -> bool:
    """Whether a node is one of TensorRT's own plugin, which no other runtime has."""
    return any(node.op_type == PLUGIN for node in model.graph.node)


def quantized_layers(model: onnx.ModelProto) -> tuple[GraphLayer, ...]:
    """The layers whose input and weight both come from DequantizeLinear."""
    graph = _Graph(model.graph)
    return tuple(
        graph.layer(node)
        for node in model.graph.node
        if graph.weight_of(node) and all(graph.dequantized(name) is not None for name in node.input[:2])
    )


def weighted_layers(model: onnx.ModelProto) -> tuple[GraphLayer, ...]:
    """The layers that have a constant weight, quantized or not."""
    graph = _Graph(model.graph)
    return tuple(graph.layer(node) for node in model.graph.node if graph.weight_of(node))


class _Graph:
    """A graph's nodes and constants by the names of their tensors."""

    def __init__(self, graph: onnx.GraphProto, in_float: Collection[str] = ()) -> None:
        self.in_float = in_float
        self.producer = {output: node for node in graph.node for output in node.output}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}

    @cached_property
    def constants(self) -> dict[str, TensorProto]:
        """Initializers, and the values of Constant nodes."""
        values = {
            node.output[0]: attribute.t
            for node in self.producer.values()
            if node.op_type == "Constant"
            for attribute in node.attribute
            if attribute.name == "value"
        }
        return {**self._initializers, **values}

    def array(self, name: str) -> NDArray[Any] | None:
        """A constant's value; None for what the network computes."""
        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def origin(self, name: str) -> str:
        """The tensor that a tensor is a transposed or reshaped view of."""
        while (node := self.producer.get(name)) is not None and node.op_type in LAYOUT:
            name = node.input[0]
        return name

    def dequantized(self, name: str) -> NodeProto | None:
        """The DequantizeLinear that a tensor comes from."""
        node = self.producer.get(self.origin(name))
        return node if node is not None and node.op_type == "DequantizeLinear" else None

    def weight_of(self, node: NodeProto) -> str | None:
        """The constant, float or quantized, that a layer has for its weight."""
        if node.op_type not in WEIGHTED:
            return None
        dequantize = self.dequantized(node.input[1])
        name = self.origin(node.input[1]) if dequantize is None else dequantize.input[0]
        return name if name in self.constants else None

    def layer(self, node: NodeProto) -> GraphLayer:
        module, found, _ = (self.weight_of(node) or "").partition(".weight")
        return GraphLayer(node.name, module if found else node.name)


def _problems_of(node: NodeProto, graph: _Graph) -> Iterator[Problem]:
    if node.op_type == PLUGIN:
        yield from _plugin_problems(node)
    elif node.domain not in ("", "ai.onnx") or _UNKNOWN_OPERATOR.fullmatch(node.op_type):
        yield Problem(f"{_name(node)}: TensorRT has no such operator", "write quantization as Q/DQ nodes")
    elif node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        yield from _quantization_problems(node, graph)
    elif graph.weight_of(node):
        yield from _layer_problems(node, graph)


def _plugin_problems(node: NodeProto) -> Iterator[Problem]:
    if (len(node.input), len(node.output)) not in ((2, 4), (3, 4)):
        text = f"{_name(node)} has {len(node.input)} inputs and {len(node.output)} outputs"
        yield Problem(f"{text}; it takes boxes, scores and perhaps anchors, and gives 4", _PLUGIN_HINT)
    given = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    for name, (kind, least, most) in _OF_PLUGIN.items():
        if name not in given:
            yield Problem(f"{_name(node)} is not told its {name}", _PLUGIN_HINT)
        elif not isinstance(given[name], kind) or not least <= given[name] <= most:
            yield Problem(f"{_name(node)} has {name} = {given[name]!r}, which the plugin does not take", _PLUGIN_HINT)


def _quantization_problems(node: NodeProto, graph: _Graph) -> Iterator[Problem]:
    kind = _integer_type(node, graph)
    if kind == TensorProto.INT32:
        yield Problem(f"{_name(node)} gives an int32 bias, which TensorRT refuses", "leave the bias in float")
        return
    if kind == TensorProto.UINT8:
        yield Problem(f"{_name(node)} has uint8, which TensorRT reads as int8: its numbers would be others", _SYMMETRIC)
    elif kind != TensorProto.INT8:
        found = TensorProto.DataType.Name(kind).lower() if kind else "an unknown type"
        yield Problem(f"{_name(node)} has {found}, and TensorRT takes int8", _SYMMETRIC)
    if len(node.input) > 2 and node.input[2]:
        zero_point = graph.array(node.input[2])
        if zero_point is None or zero_point.any():
            yield Problem(f"{_name(node)} has a zero point that is not 0, which TensorRT refuses", _SYMMETRIC)
    yield from _scale_problems(node, graph)


def _scale_problems(node: NodeProto, graph: _Graph) -> Iterator[Problem]:
    scale = graph.array(node.input[1])
    if scale is None:
        yield Problem(f"{_name(node)} has a scale that the network computes, and TensorRT takes constants", _SYMMETRIC)
        return
    if not (np.isfinite(scale) & (scale > 0)).all():
        yield Problem(f"{_name(node)} has a scale that is not a positive number", "calibrate or train again")
    shape = tuple(scale.shape)
    weight = graph.array(node.input[0])
    if weight is None:
        if shape:
            text = f"{_name(node)} has a scale of shape {shape}"
            yield Problem(f"{text}; TensorRT keeps an activation in float unless it is a scalar", _SYMMETRIC)
        return
    axis = _integer_attribute(node, "axis", 1) % max(weight.ndim, 1)
    if shape and shape != (weight.shape[axis],):
        text = f"{_name(node)} has a scale of shape {shape} for axis {axis} of a weight of shape {tuple(weight.shape)}"
        yield Problem(text, "give a scale for each output channel, or one scalar for all")


def _layer_problems(node: NodeProto, graph: _Graph) -> Iterator[Problem]:
    activation, weight = (graph.dequantized(name) for name in node.input[:2])
    if weight is None and graph.layer(node).module in graph.in_float:
        return
    if (activation is None) != (weight is None):
        missing = "input" if activation is None else "weight"
        yield Problem(f"{_name(node)} is quantized, but its {missing} does not come from DequantizeLinear", _SYMMETRIC)
    if weight is None or not graph.constants[weight.input[0]].dims:
        return
    scale = graph.array(weight.input[1])
    rank = len(graph.constants[weight.input[0]].dims)
    given, wanted = _integer_attribute(weight, "axis", 1) % rank, _output_axis(node, graph, rank)
    if scale is not None and scale.ndim == 1 and given != wanted:
        text = f"{_name(weight)} has scales along axis {given}"
        needed = f"TensorRT keeps {_name(node)} in float unless they lie along axis {wanted}"
        yield Problem(f"{text}; {needed}", "give a scale for each output channel, or one scalar for all")


def _output_axis(node: NodeProto, graph: _Graph, rank: int) -> int:
    """The axis of a layer's weight, as it is stored, that its output channels are on."""
    if node.op_type in ("Conv", "ConvTranspose"):
        return 0 if node.op_type == "Conv" else 1
    axis = rank - 1 if node.op_type == "MatMul" else 1 - _integer_attribute(node, "transB", 0)
    name = node.input[1]
    while (before := graph.producer.get(name)) is not None and before.op_type in LAYOUT:
        if before.op_type == "Transpose":
            order = next((list(each.ints) for each in before.attribute if each.name == "perm"), [*range(rank)][::-1])
            axis = order[axis]
        name = before.input[0]
    return axis


def _integer_type(node: NodeProto, graph: _Graph) -> int:
    """The ONNX type of the integers that a node makes or reads, 0 where it cannot be told."""
    if len(node.input) > 2 and node.input[2] in graph.constants:
        return int(graph.constants[node.input[2]].data_type)
    if node.op_type == "QuantizeLinear":
        return _integer_attribute(node, "output_dtype", 0) or TensorProto.UINT8  # the standard's default
    if node.input[0] in graph.constants:
        return int(graph.constants[node.input[0]].data_type)
    source = graph.producer.get(graph.origin(node.input[0]))
    return _integer_type(source, graph) if source is not None and source.op_type == "QuantizeLinear" else 0


def _integer_attribute(node: NodeProto, name: str, default: int) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), default)


def _name(node: NodeProto) -> str:
    return f"{node.op_type} {node.name!r}" if node.name else f"the {node.op_type} that makes {node.output[0]!r}"
