"""Poolings as XNNPACK's lowering reads them, so that it takes them; none computes anything else than before."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Graph, Node

aten = torch.ops.aten

_MAXIMUM = (aten.max_pool2d.default, aten.max_pool2d_with_indices.default)
_AVERAGE = aten.avg_pool2d.default
_MEAN = aten.mean.dim
_QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default
_DEQUANTIZE = torch.ops.quantized_decomposed.dequantize_per_tensor.default


def settle_pools(graph: Graph) -> None:
    """Writes out three things that XNNPACK's lowering does not work out itself.

    They are the stride that `F.max_pool2d(x, 2)` leaves out; that an average without padding counts no padding; and
    that `x.mean((2, 3))` is a global pooling whose last two dimensions, of one element each, are dropped afterwards.
    """
    for node in list(graph.nodes):
        if node.target in _MAXIMUM:
            node.args = _with_stride(*node.args)
        elif node.target is _AVERAGE:
            node.args = _counting(*_with_stride(*node.args))
        elif node.target is _MEAN and _drops_height_and_width(node):
            _keep_then_drop(graph, node)


def _with_stride(source: Any, window: Any, stride: Any = (), *rest: Any) -> tuple[Any, ...]:
    return (source, window, stride or window, *rest)


def _counting(
    source: Any,
    window: Any,
    stride: Any,
    padding: Any = (0, 0),
    ceil: bool = False,
    counted: bool = True,
    *divisor: Any,
) -> tuple[Any, ...]:
    """XNNPACK refuses averages that count their padding, even where there is none."""
    return (source, window, stride, list(padding), ceil, counted and (ceil or any(padding)), *divisor)


def _drops_height_and_width(node: Node) -> bool:
    arguments: tuple[Any, ...] = tuple(node.args)  # fx types arguments as everything that can be one
    source, dims, *keep = arguments
    is_map = isinstance(source, Node) and source.meta["val"].dim() == 4
    return is_map and sorted(dim % 4 for dim in dims) == [2, 3] and not any(keep) and not node.kwargs


def _keep_then_drop(graph: Graph, node: Node) -> None:
    """Takes the mean with its dimensions kept, and drops them afterwards.

    Where the result is quantized, the mean is quantized first with the same scale, so that XNNPACK pools integers.
    """
    with graph.inserting_before(node):
        kept = graph.call_function(_MEAN, (*node.args[:2], True))
        kept.meta = {**node.meta, "val": node.meta["val"][..., None, None]}
        if len(node.users) == 1 and (user := next(iter(node.users))).target is _QUANTIZE:
            quantized = graph.call_function(_QUANTIZE, (kept, *user.args[1:]))
            quantized.meta = {**kept.meta, "val": user.meta["val"][..., None, None]}
            before, kept = kept, graph.call_function(_DEQUANTIZE, (quantized, *user.args[1:]))
            kept.meta = dict(before.meta)
        flat = graph.call_function(aten.flatten.using_ints, (kept, 1))
        flat.meta = dict(node.meta)
    node.replace_all_uses_with(flat)
    graph.erase_node(node)
