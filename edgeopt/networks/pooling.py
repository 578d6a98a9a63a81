"""Adaptive maxima as plain ones, which more runtimes have."""

from __future__ import annotations

from operator import getitem
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch is heavy: whoever has a graph has imported it already
    from torch.fx import Graph


def spell_out_adaptive_maxima(graph: Graph) -> None:
    """Replaces, in place, each adaptive maximum of a captured graph whose windows are all of one size; the values stay
    the same.
    """
    import torch

    aten = torch.ops.aten
    for node in list(graph.nodes):
        if node.target is not aten.adaptive_max_pool2d.default:
            continue
        for unread in [user for user in node.users if not user.users]:
            graph.erase_node(unread)
        if not all(user.target is getitem and user.args[1] == 0 for user in node.users):
            continue  # some node reads where the maxima are, which the plain operator does not say
        source, size = node.args
        given = source.meta["val"].shape[-2:]
        if any(whole % parts for whole, parts in zip(given, size, strict=True)):
            continue
        window = [whole // parts for whole, parts in zip(given, size, strict=True)]
        for value in list(node.users):
            value.target, value.args = aten.max_pool2d.default, (source, window, window)
        graph.erase_node(node)
