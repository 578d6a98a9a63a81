"""Outputs that mind rounding: the layers that give them stay in float, and all that comes after these."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from torch.fx import GraphModule, Node


@dataclass(frozen=True)
class EndOfGraph:
    """What is read by some outputs of a captured graph alone: the last layers before them, by node, and for each node
    after these the last layers that it depends on.
    """

    last: Mapping[Node, str]
    after: Mapping[Node, frozenset[str]]

    @classmethod
    def of(cls, model: GraphModule, places: Sequence[int], layers: Mapping[Node, str]) -> EndOfGraph:
        """The end before the outputs at `places`; `layers` are names of layers by the node that calls them.

        A layer that is called before another one as well is no last layer, and neither is one that others read.
        """
        output = model.graph.output_node()
        (given,) = output.args
        answers = list(given) if isinstance(given, tuple | list) else [given]
        inside = {output}
        others = {node for place, node in enumerate(answers) if place not in places}
        called = {answers[place] for place in places if place < len(answers)} - others
        last: dict[Node, str] = {}
        after: list[Node] = []
        for node in reversed(list(model.graph.nodes)):
            alone = all(user in inside for user in node.users)
            if (
                node.op != "call_function"
                or not node.users
                or not alone
                or (output in node.users and node not in called)
            ):
                continue
            if node in layers:
                last[node] = layers[node]
            else:
                inside.add(node)
                after.append(node)
        before_others = {name for node, name in layers.items() if node not in last}
        last = {node: name for node, name in last.items() if name not in before_others}
        reached: dict[Node, frozenset[str]] = {}
        for node in reversed(after):
            before = [
                reached.get(each, frozenset({layers[each]}) if each in layers else frozenset())
                for each in node.all_input_nodes
            ]
            reached[node] = frozenset().union(*before)
        return cls(last, {node: names for node, names in reached.items() if names})

    @property
    def names(self) -> frozenset[str]:
        """Names of the last layers."""
        return frozenset(self.last.values())

    def in_float(self, layers: Collection[str]) -> list[Node]:
        """The nodes whose results are not rounded where `layers` are in float: these, and what follows them alone."""
        kept = frozenset(layers)
        return [
            *(node for node, name in self.last.items() if name in kept),
            *(node for node, names in self.after.items() if names <= kept),
        ]
