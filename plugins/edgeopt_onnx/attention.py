"""Attention as ONNX's translation takes it: with a dimension for its heads."""

from __future__ import annotations

import torch
from torch.fx import Graph, Node

aten = torch.ops.aten


def give_heads(graph: Graph) -> None:
    """Turns, in place, attention over (batch, length, width) into attention of one head; the values stay the same."""
    for node in list(graph.nodes):
        if node.target is not aten.scaled_dot_product_attention.default or node.args[0].meta["val"].dim() != 3:
            continue
        users = list(node.users)
        with graph.inserting_before(node):
            node.args = tuple(_with_head(graph, each) for each in node.args)
        with graph.inserting_after(node):
            result = graph.call_function(aten.squeeze.dim, (node, 1))
        result.meta = dict(node.meta)
        node.meta = {**node.meta, "val": node.meta["val"].unsqueeze(1)}
        for user in users:
            user.replace_input_with(node, result)


def _with_head(graph: Graph, argument: object) -> object:
    """A query, key, value or mask of three dimensions with one more; anything else as it is."""
    if not isinstance(argument, Node) or argument.meta["val"].dim() != 3:
        return argument
    wide = graph.call_function(aten.unsqueeze.default, (argument, 1))
    wide.meta = {**argument.meta, "val": argument.meta["val"].unsqueeze(1)}
    return wide
