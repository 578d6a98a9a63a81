"""Paddings as XNNPACK takes them in an int8 program.

XNNPACK's lowering gives a padding that follows a dequantize node integers as its output. Unless a convolution comes next, its
input stays float, and the runtime refuses the mixture when it loads the file.
"""

from __future__ import annotations

import torch
from torch.fx import Graph, Node

aten = torch.ops.aten
quantized_decomposed = torch.ops.quantized_decomposed

_PADS = (aten.pad.default, aten.constant_pad_nd.default)
_DEQUANTIZE = quantized_decomposed.dequantize_per_tensor.default
_QUANTIZE = quantized_decomposed.quantize_per_tensor.default


def settle_pads(graph: Graph) -> None:
    """Removes paddings by nothing, and puts the quantizers of a padding's input behind it as well; neither changes a value.

    Zero is among the values of an int8 scale, and padded zeros stay what they are.
    """
    for node in list(graph.nodes):
        if node.target not in _PADS:
            continue
        source, amounts = node.args[:2]
        if not any(amounts):
            node.replace_all_uses_with(source)
            graph.erase_node(node)
        elif source.target is _DEQUANTIZE and not any(user.target is _QUANTIZE for user in node.users):
            _quantize_behind(graph, node, source)


def _quantize_behind(graph: Graph, node: Node, source: Node) -> None:
    users = list(node.users)
    numerics = source.args[1:]
    with graph.inserting_after(node):
        quantized = graph.call_function(_QUANTIZE, (node, *numerics))
    with graph.inserting_after(quantized):
        back = graph.call_function(_DEQUANTIZE, (quantized, *numerics))
    quantized.meta = {**node.meta, "val": source.args[0].meta["val"].new_empty(node.meta["val"].shape)}
    back.meta = dict(node.meta)
    for user in users:
        user.replace_input_with(node, back)
