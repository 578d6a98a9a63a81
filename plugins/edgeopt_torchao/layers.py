"""Which layers of a program are quantized, and which stayed in float."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from edgeopt.errors import NothingChangedError

aten = torch.ops.aten

LINEARS = frozenset({aten.linear.default, aten.addmm.default, aten.mm.default})
CONVOLUTIONS = frozenset(
    {
        aten.conv1d.default,
        aten.conv2d.default,
        aten.conv3d.default,
        aten.conv1d.padding,
        aten.conv2d.padding,
        aten.conv3d.padding,
        aten.convolution.default,
        aten.conv_transpose1d.default,
        aten.conv_transpose2d.input,
        aten.conv_transpose3d.input,
    }
)


@dataclass(frozen=True)
class LayerCounts:
    """Convolution and linear layers of a program, by what is quantized.

    `quantized` layers have integer weights and integer inputs; `float_layers` names the rest, which may have one of the two.
    """

    layers: int
    quantized_weights: int
    quantized_activations: int
    quantized: int
    float_layers: tuple[str, ...]


def count_quantized(program: ExportedProgram | GraphModule) -> LayerCounts:
    """Count the convolution and linear layers of a converted program, folded or not.

    Raises `NothingChangedError` when it has such layers and none has a quantized weight, or when it has none at all.
    """
    weights = activations = both = layers = 0
    in_float: list[str] = []
    for node in program.graph.nodes:
        if node.op != "call_function" or node.target not in LINEARS | CONVOLUTIONS:
            continue
        activation, weight = _operands(node)
        layers += 1
        weights += _is_dequantized(weight)
        activations += _is_dequantized(activation)
        if _is_dequantized(weight) and _is_dequantized(activation):
            both += 1
        else:
            in_float.append(_layer_name(program, node, weight))
    if not weights:
        raise NothingChangedError(
            f"none of the {layers} convolution and linear layers is quantized"
            if layers
            else "the program has no convolution or linear layer",
            hint="use a quantizer that covers the layers of this model, or leave the quantizing pass out",
        )
    return LayerCounts(layers, weights, activations, both, tuple(in_float))


def _operands(node: Node) -> tuple[Node, Node]:
    """Activation and weight of a layer; `addmm` has its bias first."""
    first = 1 if node.target is aten.addmm.default else 0
    return node.args[first], node.args[first + 1]


_LAYOUT_ONLY = frozenset(
    {aten.t.default, aten.transpose.int, aten.permute.default, aten.view.default, aten.reshape.default}
)


def _through_layout(node: Node) -> Node:
    while isinstance(node, Node) and node.target in _LAYOUT_ONLY:
        node = node.args[0]
    return node


def _is_dequantized(node: Node) -> bool:
    return "dequantize" in str(getattr(_through_layout(node), "target", ""))


def _layer_name(program: ExportedProgram | GraphModule, node: Node, weight: Node) -> str:
    """The layer's name in the model, from its weight; the node's name where the weight was folded into a constant."""
    source = _through_layout(weight)
    while source.op == "call_function" and isinstance(source.args[0], Node):
        source = source.args[0]
    if isinstance(program, ExportedProgram):
        signature = program.graph_signature
        name = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}.get(source.name, "")
    else:
        name = str(source.target) if source.op == "get_attr" else ""
    holder, _, attribute = name.rpartition(".")
    return holder if attribute == "weight" else node.name
