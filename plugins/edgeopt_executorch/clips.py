"""Clips as XNNPACK's lowering fuses them into the layer before them: as ReLU or hardtanh, not as clamp."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Graph, Node

aten = torch.ops.aten

CLAMPS = (aten.clamp.default, aten.clamp_.default)


def settle_clips(graph: Graph) -> None:
    """Replaces each clamp by the ReLU or hardtanh of the same bounds, where there is one, and of the largest number where there is none above.

    XNNPACK gives up, as if it had no memory, when it runs a float clamp from anything but zero to infinity.
    """
    for node in graph.nodes:
        if node.target not in CLAMPS:
            continue
        same = activation_of(node)
        if same is None and (least := _bounds(node)[0]) is not None:
            same = aten.hardtanh.default, (node.args[0], least, torch.finfo(torch.float32).max)
        if same is not None:
            node.target, node.args, node.kwargs = *same, {}


def activation_of(clamp: Node) -> tuple[Any, tuple[Any, ...]] | None:
    """The operator, and its arguments, that does what `clamp` does and that XNNPACK fuses; None for a bound on one side."""
    source = clamp.args[0]
    least, most = _bounds(clamp)
    if least == 0 and most is None:
        return aten.relu.default, (source,)
    if least is not None and most is not None:
        return aten.hardtanh.default, (source, least, most)
    return None


def _bounds(clamp: Node) -> tuple[Any, Any]:
    least, most = (*clamp.args[1:], None, None)[:2]
    return clamp.kwargs.get("min", least), clamp.kwargs.get("max", most)
