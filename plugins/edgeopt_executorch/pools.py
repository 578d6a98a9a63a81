"""Poolings as XNNPACK's lowering reads them, so that it takes them; none computes anything else than before."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Graph

aten = torch.ops.aten

_MAXIMUM = (aten.max_pool2d.default, aten.max_pool2d_with_indices.default)
_AVERAGE = aten.avg_pool2d.default


def settle_pools(graph: Graph) -> None:
    """Writes out the stride that `F.max_pool2d(x, 2)` leaves out, and that an average without padding counts none of it."""
    for node in graph.nodes:
        if node.target in _MAXIMUM:
            node.args = _with_stride(*node.args)
        elif node.target is _AVERAGE:
            node.args = _counting(*_with_stride(*node.args))


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
