"""Clips as XNNPACK's lowering fuses them into the layer before them: as ReLU or hardtanh, not as clamp."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Graph, Node

aten = torch.ops.aten

CLAMPS = (aten.clamp.default, aten.clamp_.default)


def settle_clips(graph: Graph) -> None:
    """Replaces each clamp by the ReLU or hardtanh of the same bounds, where there is one."""
    for node in graph.nodes:
        if node.target in CLAMPS and (same := activation_of(node)):
            node.target, node.args, node.kwargs = *same, {}


def activation_of(clamp: Node) -> tuple[Any, tuple[Any, ...]] | None:
    """The operator, and its arguments, that does what `clamp` does and that XNNPACK fuses; None for a bound on one side."""
    source, *given = clamp.args
    least, most = (*given, None, None)[:2]
    least, most = clamp.kwargs.get("min", least), clamp.kwargs.get("max", most)
    if least == 0 and most is None:
        return aten.relu.default, (source,)
    if least is not None and most is not None:
        return aten.hardtanh.default, (source, least, most)
    return None
