"""Pixels as Core ML has them: an image enters a network as floats from 0 to 255, a plane for each channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from edgeopt.networks.layers import operator_name

if TYPE_CHECKING:
    from torch.fx import GraphModule


def take_planes(model: GraphModule) -> None:
    """Has a program that takes bytes with channels last take floats with channels first, in place."""
    for node in list(model.graph.nodes):
        if operator_name(node).startswith("aten._assert_tensor_metadata"):  # of a type that pixels no longer have
            model.graph.erase_node(node)
    (given,) = (node for node in model.graph.nodes if node.op == "placeholder")
    with model.graph.inserting_after(given):
        pixels = model.graph.call_function(torch.ops.aten.permute.default, (given, [0, 2, 3, 1]))
    given.replace_all_uses_with(pixels, delete_user_cb=lambda user: user is not pixels)
    model.recompile()
