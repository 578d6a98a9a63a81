"""Layers of a program that ncnn computes in int8: which they are, and their integers and scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.fx.node import map_arg

from edgeopt.networks.layers import LayerCall, LayerKind, constant_of, layer_call, operator_name
from edgeopt.networks.tensors import named_tensor, set_named_tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch.fx import GraphModule, Node

_TO_FLOAT = "quantized_decomposed.dequantize_per_"
_AXES = {LayerKind.CONVOLUTION: 4, LayerKind.LINEAR: 2}


@dataclass(frozen=True, eq=False)
class Int8Layer:
    """A layer as the program rounds it: the module's `name`, `weight` as float32 and its integers, a scale for each
    output channel, and the scale of what enters.
    """

    name: str
    weight: NDArray[np.float32]
    integers: NDArray[np.int8]
    weight_scales: NDArray[np.float32]
    input_scale: float


def has_int8_kernel(layer: LayerCall) -> bool:
    """Whether ncnn has a layer in int8 with a scale for each output channel: convolutions of images, full or depthwise,
    and fully connected layers, with a weight that is no result of others.

    A convolution in groups has one scale for each group there, which no program has.
    """
    weight = layer.weight.meta.get("val")
    if weight is None or constant_of(layer.weight) is None or layer.operator.weight_axis != 0:
        return False
    if _AXES.get(layer.kind) != weight.dim():
        return False
    groups = layer.input.meta["val"].shape[1] // weight.shape[1] if layer.kind is LayerKind.CONVOLUTION else 1
    return bool(groups in (1, weight.shape[0]) and (groups == 1 or weight.shape[1] == 1))


def take_rounding_away(model: GraphModule) -> tuple[list[Int8Layer], int]:
    """Makes, in place, a rounded program compute in float32, and returns what was rounded of its layers, in the order of
    their calls, with the number of roundings that belong to none of them.

    Weights keep the values that they were rounded to. Raises `ValueError` for a layer whose input has a zero point.
    """
    layers = [found for node in model.graph.nodes if (found := _rounded(model, node)) is not None]
    entering = {layer.input for node in model.graph.nodes if (layer := layer_call(node)) is not None}
    others = 0
    for node in list(model.graph.nodes):
        if not operator_name(node).startswith(_TO_FLOAT):
            continue
        if constant_of(node) is None:
            others += node not in entering
            node.replace_all_uses_with(node.args[0].args[0])
            continue
        name = f"_rounded_{len(model.state_dict())}"
        set_named_tensor(model, name, _value(model, node))
        with model.graph.inserting_before(node):
            node.replace_all_uses_with(model.graph.get_attr(name))
    model.graph.eliminate_dead_code()
    model.recompile()
    return layers, others


def _rounded(model: GraphModule, node: Node) -> Int8Layer | None:
    layer = layer_call(node) if node.op == "call_function" else None
    if layer is None or not has_int8_kernel(layer):
        return None
    entering, weight = layer.input, layer.weight
    if not (operator_name(entering).startswith(f"{_TO_FLOAT}tensor") and operator_name(weight).startswith(_TO_FLOAT)):
        return None
    name = str(constant_of(weight).target).removesuffix(".weight")  # type: ignore[union-attr]  # it has a kernel
    scale, zero_point = (float(_value(model, each)) for each in entering.args[1:3])
    if zero_point:
        raise ValueError(f"the input of {name} has the zero point {zero_point:g}, and ncnn knows none")
    scales = torch.as_tensor(_value(model, weight.args[1]), dtype=torch.float32)
    integers = _value(model, weight.args[0])
    return Int8Layer(
        name,
        _value(model, weight).numpy(),
        integers.numpy(),
        np.ascontiguousarray(scales.expand(len(integers)).numpy()),
        scale,
    )


def _value(model: GraphModule, node: Any) -> Any:
    """What a node gives that reads constants alone, or a constant itself."""
    if not isinstance(node, torch.fx.Node):
        return node
    if node.op == "get_attr":
        return named_tensor(model, str(node.target)).detach()
    arguments = map_arg(node.args, lambda each: _value(model, each))
    return node.target(*arguments, **node.kwargs)  # type: ignore[operator]  # an operator of torch
