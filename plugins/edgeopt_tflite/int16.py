"""Activations of sixteen bits, "16x8", in a TFLite file.

litert-torch makes integer operators of them, and leaves two things to do. It gives operators integers that have no such
kernel, or refuses the whole network for one of them: these stay in float, between a DEQUANTIZE and a QUANTIZE. And it
writes biases of 32 bits, which LiteRT's kernels for int16 read as 64, so that a file opens and answers nonsense.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

import numpy as np
from torch.fx import Node

from edgeopt.networks.bits import CONTAINER_BITS, bits_behind, upstream
from edgeopt.networks.layers import layer_call, operator_name
from edgeopt.plugins import ExportError
from edgeopt_tflite.graph import Graph

if TYPE_CHECKING:
    from torch.export import ExportedProgram

#: Operators that litert-torch gives int16 where both sides of them are rounded, and that LiteRT computes in it as the
#: program does: each was tried between two convolutions. Of the others some have no kernel, some a coarse one
#: (RESIZE_BILINEAR), some demand a certain scale of the output (LOGISTIC, SOFTMAX), and some one scale for all inputs,
#: which litert-torch gives them by cutting off the larger one (MAXIMUM of two values).
TAKEN = (
    "aten.relu.",
    "aten.relu_.",
    "aten.relu6.",
    "aten.relu6_.",
    "aten.hardtanh.",
    "aten.hardtanh_.",
    "aten.leaky_relu.",
    "aten.leaky_relu_.",
    "aten.clamp.",
    "aten.abs.",
    "aten.mul.Tensor",
    "aten.matmul.",
    "aten.bmm.",
    "aten.avg_pool2d.",
    "aten.adaptive_avg_pool2d.",
    "aten.mean.",
    "aten.upsample_nearest2d.",
    "aten.pad.",
    "aten.constant_pad_nd.",
    "aten.slice.",
    "aten.permute.",
    "aten.transpose.",
    "aten.t.",
    "aten.view.",
    "aten.reshape.",
    "aten.flatten.",
    "aten.squeeze.",
    "aten.unsqueeze.",
    "aten.contiguous.",
    "aten.clone.",
    "aten.dropout.",
    "quantized_decomposed.",
)
_SUMS = ("aten.add.", "aten.add_.", "aten.sub.")
_POOLING = "aten.max_pool2d."
_WITH_BIAS = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}
_BITS = 32  # of the biases that litert-torch writes


def operators_without_int16(program: ExportedProgram) -> Iterator[tuple[Node, Node]]:
    """The operators of a program that read int16 and have no kernel for it, each with every such value."""
    images = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        if node.op != "call_function" or layer_call(node) is not None or _is_taken(node, images):
            continue
        for value in node.all_input_nodes:
            if (bits_behind(value) or 0) > CONTAINER_BITS and _is_computed(value, images):
                yield node, value


def _is_taken(node: Node, images: Collection[str]) -> bool:
    name = operator_name(node)
    if name.startswith(_SUMS):  # litert-torch leaves a constant in float, beside integers
        return all(isinstance(each, Node) and _is_computed(each, images) for each in node.args[:2])
    if name.startswith(_POOLING):  # it pads with an operator that has no int16
        return not node.args[3:] or node.args[3] in (0, [0], [0, 0])
    return name.startswith(TAKEN)


def _is_computed(value: Node, images: Collection[str]) -> bool:
    """Whether it depends on the image."""
    return any(each.name in images for each in upstream(value))


def widen_biases(graph: Graph) -> int:
    """Gives the biases of layers that read int16 64 bits, in place; returns how many there are.

    Raises `ExportError` for a bias that 32 bits were too few for, which is cut off by then.
    """
    found = set()
    for operator in graph.operators:
        place = _WITH_BIAS.get(graph.kind(operator))
        if place is None or len(operator.inputs) <= place or graph.dtype(int(operator.inputs[place - 2])) != "int16":
            continue
        bias = int(operator.inputs[place])
        values = graph.constant(bias) if bias >= 0 else None
        if values is None or graph.dtype(bias) != "int32":
            continue
        limits = np.iinfo(np.int32)
        if ((values == limits.min) | (values == limits.max)).any():
            raise ExportError(
                f"a bias of the layer that gives {graph.name(int(operator.outputs[0]))!r} needs more than {_BITS} bits "
                "in steps of its products, and litert-torch cuts it off there",
                hint='leave that layer in float, with layer_bits = { "its.name" = "float" }',
            )
        graph.set_constant(bias, values.astype(np.int64), "int64")
        found.add(bias)
    return len(found)


def operators_kept_float(program: ExportedProgram) -> int:
    """How many operators of a program have int16 around them and stay in float."""
    return len({node for node, _ in operators_without_int16(program)})


def undelegated(graph: Graph) -> tuple[str, ...]:
    """What the reader of a report must know of a file whose layers read int16."""
    layers = sum(layer.value == "int16" for layer in graph.layers())
    if not layers:
        return ()
    one = "one layer" if layers == 1 else f"{layers} layers"
    return (f"XNNPACK takes no int16: LiteRT's own kernels run {one}, many times slower than int8 and than float",)
