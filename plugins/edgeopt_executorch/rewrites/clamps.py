"""Clamps as ReLU or hardtanh, which XNNPACK's lowering fuses into the layer before them."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Graph, Node

aten = torch.ops.aten

CLAMPS = (aten.clamp.default, aten.clamp_.default)


def settle_clips(graph: Graph) -> None:
    """Replaces each clamp by the ReLU or hardtanh with the same bounds.

    A clamp without an upper bound becomes a hardtanh up to float32's maximum: XNNPACK fails, as if out of memory, when
    it runs a float clamp from anything but zero to infinity. A clamp without a lower bound stays.
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
    """The operator that XNNPACK fuses and that does what `clamp` does, with its arguments; None where there is none.

    There is one for zero to infinity (ReLU), and for two bounds (hardtanh).
    """
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
