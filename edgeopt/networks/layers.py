"""What a layer is: an operator of a captured graph that multiplies what enters it by a weight, and where it has both.

Whatever counts, rounds, prunes or repairs layers asks here. Files have operators of their own, and each format's plugin
lists those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from edgeopt.networks.tensors import named_tensor

if TYPE_CHECKING:  # torch is heavy: whoever has a graph has imported it already
    from torch.fx import GraphModule, Node


class LayerKind(StrEnum):
    """What a layer does, in words for people."""

    LINEAR = "linear"
    CONVOLUTION = "convolution"
    TRANSPOSED = "transposed convolution"


@dataclass(frozen=True)
class LayerOperator:
    """An operator with a weight: the places of its arguments, and the axes of its output channels.

    `weight_axis` is the weight's axis of output channels, where there is one for them alone; `output_axis` the
    result's.
    """

    kind: LayerKind
    input: int = 0
    weight: int = 1
    bias: int | None = 2
    weight_axis: int = 0
    output_axis: int = 1


@dataclass(frozen=True, eq=False)
class LayerCall:
    """A call of such an operator: what enters, the weight, and the bias where there is one."""

    node: Node
    operator: LayerOperator
    input: Node
    weight: Node
    bias: Node | None

    @property
    def kind(self) -> LayerKind:
        """What the layer does."""
        return self.operator.kind


_LINEAR = LayerOperator(LayerKind.LINEAR, output_axis=-1)
_CONVOLUTION = LayerOperator(LayerKind.CONVOLUTION)
_TRANSPOSED = LayerOperator(LayerKind.TRANSPOSED, weight_axis=1)
_PRODUCT = LayerOperator(LayerKind.LINEAR, bias=None, weight_axis=-1, output_axis=-1)  # by a matrix (inputs, outputs)
_SUM_AND_PRODUCT = LayerOperator(LayerKind.LINEAR, input=1, weight=2, bias=0, weight_axis=-1, output_axis=-1)

_OPERATORS: Mapping[str, LayerOperator] = {
    "aten.linear": _LINEAR,
    "aten.conv1d": _CONVOLUTION,
    "aten.conv2d": _CONVOLUTION,
    "aten.conv3d": _CONVOLUTION,
    "aten.convolution": _CONVOLUTION,
    "aten.conv_transpose1d": _TRANSPOSED,
    "aten.conv_transpose2d": _TRANSPOSED,
    "aten.conv_transpose3d": _TRANSPOSED,
    "aten.mm": _PRODUCT,
    "aten.bmm": _PRODUCT,
    "aten.matmul": _PRODUCT,
    "aten.addmm": _SUM_AND_PRODUCT,  # the bias comes first
    "aten.baddbmm": _SUM_AND_PRODUCT,
}
"""By the operator's name without its overload: a convolution with padding="same" is one with another overload."""
_IS_TRANSPOSED = 6  # the place of an argument of `aten.convolution`, which does both


def layer_operator(name: str, node: Node | None = None) -> LayerOperator | None:
    """What the operator `name`, such as `aten.conv2d.padding`, is as a layer; None for one without a weight.

    `node` tells, for `aten.convolution`, whether it is a transposed one.
    """
    packet = name.rpartition(".")[0]
    if packet == "aten.convolution" and node is not None and len(node.args) > _IS_TRANSPOSED:
        return _TRANSPOSED if node.args[_IS_TRANSPOSED] else _CONVOLUTION
    return _OPERATORS.get(packet)


def layer_call(node: Node) -> LayerCall | None:
    """What a node multiplies, where its operator has a weight; None for other nodes.

    The weight may be computed, also from images, as in the products of attention: `constant_of` tells.
    """
    operator = layer_operator(operator_name(node), node)
    if operator is None:
        return None
    arguments = dict(enumerate(node.args))
    entering, weight = arguments.get(operator.input), arguments.get(operator.weight)
    if not _is_node(entering) or not _is_node(weight):
        return None
    bias = None if operator.bias is None else arguments.get(operator.bias, node.kwargs.get("bias"))
    return LayerCall(node, operator, entering, weight, bias if _is_node(bias) else None)  # type: ignore[arg-type]


def constant_of(weight: Node) -> Node | None:
    """The parameter or buffer that a weight is read from, as it is, through an observer, or rounded; None where it is
    computed in another way.
    """
    source = weight
    while source.op != "get_attr":
        if not source.all_input_nodes or operator_name(source).startswith("aten."):
            return None
        source = source.all_input_nodes[0]
    return source


def operator_name(node: object) -> str:
    """For instance `aten.conv2d.default`; empty for what is not an operator."""
    return str(getattr(node, "target", "")) if getattr(node, "op", "") == "call_function" else ""


def module_path(node: Node) -> str:
    """The path of the module that an operator of a captured graph was called in, "" where unknown."""
    stack = node.meta.get("nn_module_stack") or {}
    return max((entry[0] for entry in stack.values() if isinstance(entry, tuple)), key=len, default="")


def spell_out_linear_layers(model: GraphModule) -> int:
    """Makes, in place, each product by a constant matrix of a captured graph a linear layer, as most networks have it;
    returns how many there were.

    A transformer's Conv1D calls `addmm`, whose bias comes first and whose weight is transposed: quantizers and runtimes
    know the same layer as `linear` alone.
    """
    import torch

    aten, count = torch.ops.aten, 0
    for node in list(model.graph.nodes):
        layer = layer_call(node)
        if layer is None or layer.operator not in (_PRODUCT, _SUM_AND_PRODUCT) or not _is_linear(model, layer):
            continue
        with model.graph.inserting_before(node):
            weight = model.graph.call_function(aten.t.default, (layer.weight,))
            arguments = (layer.input, weight) if layer.bias is None else (layer.input, weight, layer.bias)
            linear = model.graph.call_function(aten.linear.default, arguments)
        linear.meta = dict(node.meta)
        node.replace_all_uses_with(linear)
        model.graph.erase_node(node)
        count += 1
    if count:
        model.recompile()
    return count


def _is_linear(model: GraphModule, layer: LayerCall) -> bool:
    """Whether a product has a constant matrix of two dimensions, and a bias with a value for each column or none."""
    if layer.weight.op != "get_attr" or named_tensor(model, str(layer.weight.target)).dim() != 2:
        return False
    if layer.operator is _PRODUCT:
        return True
    if any(layer.node.kwargs.get(name, 1) != 1 for name in ("alpha", "beta")):
        return False
    bias = layer.bias
    return bias is not None and bias.op == "get_attr" and named_tensor(model, str(bias.target)).dim() == 1


def _is_node(argument: object) -> bool:
    return getattr(argument, "op", None) is not None
