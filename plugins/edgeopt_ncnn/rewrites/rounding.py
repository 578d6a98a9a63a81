"""Layers of a program that ncnn can compute in int8: which they are, and their integers and scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.fx.node import map_arg

from edgeopt.networks.layers import LayerCall, LayerKind, constant_of, layer_call, operator_name
from edgeopt.networks.tensors import named_tensor, set_named_tensor
from edgeopt.plugins import ExportError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch.fx import GraphModule

LARGEST = 127
"""-128 has no counterpart, and ncnn's kernels clip to this."""
_TO_FLOAT = "quantized_decomposed.dequantize_per_"
_VECTOR_AXES = 2  # images, and the numbers of each
_AXES = {LayerKind.CONVOLUTION: 4, LayerKind.LINEAR: 2}
_CHANNELS_AT_ONCE = 8
_FEWEST_PRODUCTS = 32  # on x86 with VNNI, layers of 16 and 24 took 6 % longer in int8, and those of 40 less time


@dataclass(frozen=True, eq=False)
class Rounding:
    """How a layer is rounded: the integers of its weight with a scale for each output channel, and the scale of what
    enters.
    """

    integers: NDArray[np.int8]
    weight_scales: NDArray[np.float32]
    input_scale: float


@dataclass(frozen=True, eq=False)
class Weighted:
    """A layer by its module's `name`, with its `weight` as float32, and how ncnn can round it as the program does.

    `is_rounded` is True without a `rounding` where the program rounds what ncnn has in float alone. `takes_a_vector`
    says of a fully connected layer that it takes one for each image, and `entering` is the program's node of what
    enters.
    """

    name: str
    weight: NDArray[np.float32]
    is_rounded: bool
    rounding: Rounding | None
    takes_a_vector: bool
    entering: str


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
    return groups_of(layer) == 1 or is_depthwise(layer)


def is_depthwise(layer: LayerCall) -> bool:
    """Whether each output channel of a convolution is made of its own input channel."""
    outputs, inputs = layer.weight.meta["val"].shape[:2]
    return bool(inputs == 1 and 1 < groups_of(layer) == outputs)


def is_slow_in_int8(layer: LayerCall) -> bool:
    """Whether ncnn's kernel for a layer takes longer in int8 than in float: it takes channels by eight, and where few
    products make a value, rounding what enters and scaling what leaves costs more than they save.
    """
    weight = layer.weight.meta["val"]
    is_small = int(weight.shape[1]) < _CHANNELS_AT_ONCE or int(weight[0].numel()) < _FEWEST_PRODUCTS
    return layer.kind is LayerKind.CONVOLUTION and (is_depthwise(layer) or is_small)


def groups_of(layer: LayerCall) -> int:
    """In how many groups a convolution has its channels."""
    if layer.kind is not LayerKind.CONVOLUTION:
        return 1
    return int(layer.input.meta["val"].shape[1] // layer.weight.meta["val"].shape[1])


def take_rounding_away(model: GraphModule) -> tuple[list[Weighted], int]:
    """Makes, in place, a rounded program compute in float32, and returns its layers in the order of their calls, with
    the number of roundings that belong to none of them.

    Weights keep the values that they were rounded to. Raises `ExportError` for a layer whose input has a zero point.
    """
    calls = [layer for node in model.graph.nodes if (layer := layer_call(node)) and constant_of(layer.weight)]
    layers = [_weighted(model, layer) for layer in calls]
    entering = {layer.input for layer in calls}
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


def _weighted(model: GraphModule, layer: LayerCall) -> Weighted:
    entering, weight = layer.input, layer.weight
    name = str(constant_of(weight).target).removesuffix(".weight")  # type: ignore[union-attr]  # it is a constant
    values = _value(model, weight).numpy()
    is_rounded = operator_name(weight).startswith(_TO_FLOAT)
    takes_a_vector = layer.kind is LayerKind.LINEAR and entering.meta["val"].dim() == _VECTOR_AXES
    if not (is_rounded and operator_name(entering).startswith(f"{_TO_FLOAT}tensor") and has_int8_kernel(layer)):
        return Weighted(name, values, is_rounded, None, takes_a_vector, entering.name)
    scale, zero_point = (float(_value(model, each)) for each in entering.args[1:3])
    if zero_point:
        said = f"the input of {name} has the zero point {zero_point:g}, and ncnn knows none"
        raise ExportError(said, hint='quantize with quantizer = "ncnn"')
    scales = torch.as_tensor(_value(model, weight.args[1]), dtype=torch.float32).expand(len(values))
    integers = _value(model, weight.args[0]).numpy()
    rounding = Rounding(integers, np.ascontiguousarray(scales.numpy()), scale)
    return Weighted(name, values, is_rounded, rounding, takes_a_vector, entering.name)


def _value(model: GraphModule, node: Any) -> Any:
    """What a node gives that reads constants alone, or a constant itself."""
    if not isinstance(node, torch.fx.Node):
        return node
    if node.op == "get_attr":
        return named_tensor(model, str(node.target)).detach()
    arguments = map_arg(node.args, lambda each: _value(model, each))
    return node.target(*arguments, **node.kwargs)  # type: ignore[operator]  # an operator of torch
