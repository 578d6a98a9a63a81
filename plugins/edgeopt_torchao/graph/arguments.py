"""What the arguments of a node are, where the graph's own type leaves everything open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.fx import Node


def node_at(node: Node, place: int) -> Node:
    """The node that is argument `place` of another."""
    argument = node.args[place]
    assert isinstance(argument, Node), f"argument {place} of {node} is {argument!r}"
    return argument


def operator_of(node: Node) -> Callable[..., Any]:
    """The operator that a node calls."""
    assert callable(node.target), f"{node} calls {node.target!r}"
    return node.target
