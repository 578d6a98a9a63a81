"""Paddings and slices as XNNPACK takes them in an int8 program: integers go in, and the same integers come out.

An operator between a dequantize and a quantize node becomes an integer kernel. Where one of the two nodes is missing,
the operator has integers on one side and floats on the other; where both are there, their scales may differ. XNNPACK's
lowering lets all of that pass, and the runtime refuses it when it loads the file.
"""

from __future__ import annotations

import torch
from torch.fx import Graph, Node
from torch.fx.node import Argument

aten = torch.ops.aten
quantized_decomposed = torch.ops.quantized_decomposed

_PADS = (aten.pad.default, aten.constant_pad_nd.default)
_SLICES = (aten.slice.Tensor,)
_DEQUANTIZE = quantized_decomposed.dequantize_per_tensor.default
_QUANTIZE = quantized_decomposed.quantize_per_tensor.default


def settle_moves(graph: Graph) -> None:
    """Removes paddings by nothing, and quantizes both sides of a padding or slice alike where one is.

    No value changes: an int8 scale always holds zero exactly, so padded zeros stay zeros.
    """
    for node in list(graph.nodes):
        if node.target not in (*_PADS, *_SLICES):
            continue
        source = node.args[0]
        quantizers = [user for user in node.users if user.target is _QUANTIZE]
        if node.target in _PADS and not any(node.args[1]):
            node.replace_all_uses_with(source)
            graph.erase_node(node)
        elif source.target is not _DEQUANTIZE:
            if len({user.args[1:] for user in quantizers}) == 1:
                node.replace_input_with(source, _rounded(graph, source, quantizers[0].args[1:]))
        elif (not quantizers and node.target in _PADS) or any(user.args[1:] != source.args[1:] for user in quantizers):
            users = list(node.users)
            back = _rounded(graph, node, source.args[1:])
            for user in users:
                user.replace_input_with(node, back)


def _rounded(graph: Graph, node: Node, numerics: tuple[Argument, ...]) -> Node:
    """A node that quantizes and dequantizes the result of `node`."""
    with graph.inserting_after(node):
        quantized = graph.call_function(_QUANTIZE, (node, *numerics))
    with graph.inserting_after(quantized):
        back = graph.call_function(_DEQUANTIZE, (quantized, *numerics))
    quantized.meta = {**node.meta, "val": node.meta["val"].to(numerics[-1])}
    back.meta = dict(node.meta)
    return back
