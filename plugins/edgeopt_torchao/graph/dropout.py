"""Dropout, kept out of a quantizer's sight.

A quantizer observes the output of a Dropout separately from its input. In training that output is scaled up, as it
never is afterwards, so some integers are never used. And once the Dropout is gone, numbers are rounded twice in a row,
which XNNPACK (in ExecuTorch 1.4.1) refuses around a reshape and frees twice in front of a sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.fx import GraphModule, Node
from torch.fx.node import Argument, map_arg

aten = torch.ops.aten
_DROPOUTS = {
    aten.dropout.default: nn.Dropout,
    aten.dropout_.default: nn.Dropout,
    aten.feature_dropout.default: nn.Dropout2d,
    aten.feature_dropout_.default: nn.Dropout2d,
    aten.alpha_dropout.default: nn.AlphaDropout,
    aten.alpha_dropout_.default: nn.AlphaDropout,
}
_WHOLE_CHANNELS = {aten.feature_dropout.default, aten.feature_dropout_.default}
_RESHAPES = {
    aten.flatten.using_ints,
    aten.permute.default,
    aten.reshape.default,
    aten.squeeze.dims,
    aten.squeeze.dim,
    aten.transpose.int,
    aten.unsqueeze.default,
    aten.view.default,
}


@dataclass(frozen=True)
class Reader:
    """One of the inputs of a node, counted as they stand in its arguments."""

    node: str
    position: int


@dataclass(frozen=True)
class TakenOut:
    """A Dropout that is in a graph no longer, and who read it."""

    module: nn.Module
    meta: dict[str, object]
    readers: tuple[Reader, ...]


def take_out_dropouts(model: GraphModule) -> tuple[TakenOut, ...]:
    """Remove the Dropout operators of a captured program, which then computes what it does in evaluation mode."""
    graph = model.graph
    taken = []
    for node in reversed(list(graph.nodes)):
        if node.op != "call_function" or node.target not in _DROPOUTS:
            continue
        readers = _readers(node)
        taken.append(TakenOut(_DROPOUTS[node.target](node.args[1]), node.meta, readers))
        node.replace_all_uses_with(node.args[0])
        graph.erase_node(node)
    model.recompile()
    return tuple(reversed(taken))


def put_back_dropouts(model: GraphModule, taken: Sequence[TakenOut]) -> None:
    """Put each Dropout in front of those who read it, behind the fake quantizers that stand there by now.

    They are modules now, which `train()` and `eval()` reach. A value that is read both in integers and in float gets
    two Dropouts.
    """
    graph = model.graph
    nodes = {node.name: node for node in graph.nodes}
    for number, dropout in enumerate(taken):
        name = f"put_back_dropout_{number}"
        model.add_submodule(name, dropout.module)
        placed: dict[Node, Node] = {}
        for reader in dropout.readers:
            source = _inputs(nodes[reader.node])[reader.position]
            if source not in placed:
                with graph.inserting_after(source):
                    placed[source] = graph.call_module(name, (source,))
                placed[source].meta = dict(dropout.meta)
            _replace_input(nodes[reader.node], reader.position, placed[source])
    model.recompile()


def remove_dropouts(model: GraphModule) -> None:
    """Remove the Dropout modules that `put_back_dropouts` made, after training."""
    for node in list(model.graph.nodes):
        if node.op == "call_module" and is_dropout(model.get_submodule(str(node.target))):
            node.replace_all_uses_with(node.args[0])
            model.graph.erase_node(node)


def is_dropout(module: nn.Module | None) -> bool:
    """Whether `module` is one of those that `put_back_dropouts` makes."""
    return isinstance(module, tuple(_DROPOUTS.values()))


def _readers(dropout: Node) -> tuple[Reader, ...]:
    """Who reads `dropout`; a reshape that is its only reader is skipped, because it passes the same numbers on."""
    if len(dropout.users) == 1 and dropout.target not in _WHOLE_CHANNELS:
        (user,) = dropout.users
        if user.target in _RESHAPES:
            return _readers(user)
    return tuple(
        Reader(user.name, position)
        for user in dropout.users
        for position, given in enumerate(_inputs(user))
        if given is dropout
    )


def _inputs(node: Node) -> list[Node]:
    """The nodes in the arguments of `node`, each as often as it stands there."""
    found: list[Node] = []
    map_arg((node.args, node.kwargs), found.append)
    return found


def _replace_input(node: Node, position: int, new: Node) -> None:
    count = iter(range(len(_inputs(node))))

    def chosen(given: Node) -> Argument:
        return new if next(count) == position else given

    node.args = map_arg(node.args, chosen)
    node.kwargs = map_arg(node.kwargs, chosen)
