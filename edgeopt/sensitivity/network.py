"""A captured program that can start at any layer, with another weight or another input in that layer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node
from torch.fx.node import map_arg

from edgeopt.networks.layers import LayerKind, LayerOperator, layer_operator
from edgeopt.sensitivity.calls import Call, Code, Values, calls_of
from edgeopt.types import Change


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution or linear layer, or several that share one weight.

    `name` is the module's path, from the name of its weight. `weight` has its output channels on `channel_axis`.
    `is_parameter` is False where the program computes the weight from its parameters, as a standardized one; it is the
    computed one then.
    """

    name: str
    operator: LayerOperator
    weight: Tensor
    is_parameter: bool
    nodes: tuple[Node, ...]

    @property
    def kind(self) -> LayerKind:
        """What the layer does."""
        return self.operator.kind

    @property
    def channel_axis(self) -> int:
        """The weight's axis of output channels."""
        return self.operator.weight_axis % self.weight.dim()


@dataclass(frozen=True, eq=False)
class Moment:
    """The state just before a layer is computed for one batch: all values that it and the calls after it still read."""

    layer: Layer
    start: int
    values: Mapping[Node, Any]


_Changes = Mapping[Node, tuple[LayerOperator, Change]]


class Network:
    """A captured float program by its layers.

    It takes float32 (n, channels, height, width) and gives the program's outputs; runs belong into
    `torch.inference_mode`. What depends on no image is computed once. Several threads may run it at once.

    Raises `ExportError` for a program of several inputs.
    """

    def __init__(self, program: ExportedProgram) -> None:
        self._code = calls_of(program)
        self._places = {call.node: place for place, call in enumerate(self._code.calls)}
        layers = _layers(self._code, set(program.graph_signature.parameters))
        self.layers: Mapping[str, Layer] = {layer.name: layer for layer in layers}

    def outputs(self, batch: Tensor, changes: Mapping[str, Change] | None = None) -> tuple[Tensor, ...]:
        """The outputs, with the named layers changed where `changes` are given."""
        values: Values = {self._code.input: batch}
        self._run(values, 0, len(self._code.calls), self._by_node(changes or {}))
        return self._answer(values)

    def outputs_from(self, moment: Moment, change: Change) -> tuple[Tensor, ...]:
        """The outputs for the batch of `moment`, with its layer changed."""
        values = dict(moment.values)
        layer = moment.layer
        changes = dict.fromkeys(layer.nodes, (layer.operator, change))
        self._run(values, moment.start, len(self._code.calls), changes)
        return self._answer(values)

    def walk(self, batch: Tensor, names: Iterable[str]) -> Iterator[Moment]:
        """Runs a batch up to the last of the named layers and stops just before each, in the order of the program."""
        stops = sorted((self._places[layer.nodes[0]], layer.name) for layer in map(self.layers.__getitem__, names))
        values: Values = {self._code.input: batch}
        place = 0
        for stop, name in stops:
            self._run(values, place, stop, {})
            place = stop
            yield Moment(self.layers[name], stop, dict(values))

    def watch(self, batches: Iterable[Tensor], see: Callable[[str, Tensor], None]) -> int:
        """Calls `see(layer, input)` for every input of each layer while `batches` run; returns the number of images."""
        owners = {node: layer for layer in self.layers.values() for node in layer.nodes}
        images = 0
        with torch.inference_mode():
            for batch in batches:
                images += len(batch)
                values: Values = {self._code.input: batch}
                for place, call in enumerate(self._code.calls):
                    if layer := owners.get(call.node):
                        see(layer.name, self._value(call.args[layer.operator.input], values))
                    self._run(values, place, place + 1, {})
        return images

    def _by_node(self, changes: Mapping[str, Change]) -> _Changes:
        layers = [(self.layers[name], change) for name, change in changes.items()]
        return {node: (layer.operator, change) for layer, change in layers for node in layer.nodes}

    def _run(self, values: Values, start: int, stop: int, changes: _Changes) -> None:
        for call in self._code.calls[start:stop]:
            args, kwargs = self._value(call.args, values), self._value(call.kwargs, values)
            if changed := changes.get(call.node):
                operator, change = changed
                given = list(args)
                if change.input is not None:
                    given[operator.input] = change.input(given[operator.input])
                if change.weight is not None:
                    given[operator.weight] = change.weight
                args = tuple(given)
            values[call.node] = call.operator(*args, **kwargs)
            for node in call.done_with:
                del values[node]

    def _value(self, argument: Any, values: Values) -> Any:
        constants = self._code.constants
        return map_arg(argument, lambda node: values[node] if node in values else constants[node])

    def _answer(self, values: Values) -> tuple[Tensor, ...]:
        return tuple(self._value(node, values) for node in self._code.outputs)


def _layers(code: Code, parameters: Collection[str]) -> list[Layer]:
    """Calls with a constant weight, in order; those that share one are one layer."""
    users: dict[Node, list[tuple[Call, LayerOperator]]] = {}
    for call in code.calls:
        operator = layer_operator(str(call.operator), call.node)
        if operator is not None and call.args[operator.weight] in code.constants:
            users.setdefault(call.args[operator.weight], []).append((call, operator))
    return [
        Layer(
            name=layer_name(weight, calls[0][0].node),
            operator=calls[0][1],
            weight=code.constants[weight],
            is_parameter=weight.op == "get_attr" and str(weight.target) in parameters,
            nodes=tuple(call.node for call, _ in calls),
        )
        for weight, calls in users.items()
    ]


def layer_name(weight: Node, user: Node) -> str:
    """The module's path where the weight comes from one parameter called "weight", else the parameter's or the call's
    name.
    """
    sources, found = [weight], set()
    while sources:
        node = sources.pop()
        if node.op == "get_attr":
            found.add(str(node.target))
        sources += node.all_input_nodes
    named = [name for name in found if name.rpartition(".")[2] == "weight"] or sorted(found)
    if len(named) != 1:
        return user.name
    holder, _, attribute = named[0].rpartition(".")
    return holder if attribute == "weight" and holder else named[0]
