"""ReLU6 in one of the two ways in which networks are written, so that whoever looks for it looks for one operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch is heavy: whoever has a graph has imported it already
    from torch.fx import Graph


def spell_out_relu6(graph: Graph) -> None:
    """Makes, in place, the function `relu6` of a captured graph what the module `ReLU6` is: a hardtanh from 0 to 6."""
    import torch

    aten = torch.ops.aten
    same = {aten.relu6.default: aten.hardtanh.default, aten.relu6_.default: aten.hardtanh_.default}
    for node in graph.nodes:
        if node.target in same:
            node.target, node.args = same[node.target], (*node.args, 0.0, 6.0)
