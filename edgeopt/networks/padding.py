"""Convolutions whose padding is a word get numbers in its place, which every quantizer and runtime knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch is heavy: whoever has a graph has imported it already
    from torch.fx import Graph, Node


def spell_out_padding(graph: Graph) -> int:
    """Replaces, in place, each convolution of a captured graph that says "same" or "valid" by one with numbers; returns
    how many there were.

    An even kernel needs one pixel more at the end than at the beginning: an operator before the convolution adds those,
    as torch itself does. The values stay the same.
    """
    import torch

    aten = torch.ops.aten
    plain: Mapping[Any, Any] = {
        aten.conv1d.padding: aten.conv1d.default,
        aten.conv2d.padding: aten.conv2d.default,
        aten.conv3d.padding: aten.conv3d.default,
    }
    count = 0
    for node in list(graph.nodes):
        if node.target not in plain:
            continue
        given = _arguments(node)
        source, weight = given["input"], given["weight"]
        window = weight.meta["val"].shape[2:]
        stride, dilation = (_each_axis(given[name], len(window)) for name in ("stride", "dilation"))
        before, extra = [0] * len(window), [0] * len(window)
        if given["padding"] == "same":
            totals = [step * (size - 1) for step, size in zip(dilation, window, strict=True)]
            before, extra = [total // 2 for total in totals], [total % 2 for total in totals]
        if any(extra):
            source = _padded(graph, node, source, extra)
        node.target = plain[node.target]
        node.args = (source, weight, given["bias"], stride, before, dilation, given["groups"])
        node.kwargs = {}
        count += 1
    return count


def _arguments(node: Node) -> dict[str, Any]:
    """The arguments of an operator's call by their names, with the operator's defaults for what the call leaves out."""
    declared = node.target._schema.arguments  # type: ignore[union-attr]  # noqa: SLF001 - torch's only way
    values = {each.name: each.default_value for each in declared if each.has_default_value()}
    return values | {each.name: value for each, value in zip(declared, node.args, strict=False)} | node.kwargs


def _each_axis(value: int | Sequence[int], axes: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values


def _padded(graph: Graph, node: Node, source: Node, extra: Sequence[int]) -> Node:
    """`source` with `extra` zeros at the end of each axis; torch counts axes from the last."""
    import torch

    widths = list(chain.from_iterable((0, each) for each in reversed(extra)))
    with graph.inserting_before(node):
        padded = graph.call_function(torch.ops.aten.pad.default, (source, widths))
    value = source.meta["val"]
    padded.meta = {**node.meta, "val": torch.nn.functional.pad(value, widths)}
    return padded
