"""Layers that a quantized program keeps in float, and operators that have no kernel for its integers.

TensorFlow's converter makes every layer int8 that stands between integers, even where its weights are float. A mark
before such a layer keeps the converter from that: two operators that have no integer kernel. It is taken out of the
file again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from edgeopt.networks.bits import float_layers_of_integers
from edgeopt.networks.layers import operator_name
from edgeopt.plugins import ExportError
from edgeopt_tflite.graph import Graph
from edgeopt_tflite.int16 import operators_without_int16

aten = torch.ops.aten

_WAVES = ("aten.sin.default", "aten.cos.default")
_WAVES_IN_FILE = ("SIN", "COS")


@dataclass(frozen=True)
class Marks:
    """How many marks were put in, and how many operators each has: more than the network itself has in a row."""

    count: int
    length: int


def mark_float_layers(program: ExportedProgram, module: GraphModule) -> Marks:
    """Puts a mark between integers and each operator that stays float, in place, in a program's module."""
    nodes = {node.name: node for node in module.graph.nodes}
    length = max(2, 1 + _longest_row(module))
    marks: dict[Node, Node] = {}  # of each value one, as several layers may read it
    found = [*float_layers_of_integers(program), *operators_without_int16(program)]
    for layer, value in ((nodes[layer.name], nodes[value.name]) for layer, value in found):
        if value not in marks:
            marks[value] = value
            with module.graph.inserting_before(layer):
                for place in range(length):
                    operator = (aten.sin.default, aten.cos.default)[place % 2]
                    marks[value] = module.graph.call_function(operator, (marks[value],))
                    marks[value].meta["val"] = value.meta["val"]
        layer.replace_input_with(value, marks[value])
    module.recompile()
    return Marks(len(marks), length)


def _longest_row(module: GraphModule) -> int:
    """How many sines and cosines a network itself has at most one behind the other."""
    rows: dict[Node, int] = {}
    for node in module.graph.nodes:
        if operator_name(node) in _WAVES:
            rows[node] = 1 + rows.get(node.args[0], 0)
    return max(rows.values(), default=0)


def unmark_float_layers(graph: Graph, marks: Marks) -> None:
    """Takes the marks out of a file, and nothing that the network itself computes.

    `audit` then checks that the layers behind them are float. Raises `ExportError` when the file has another number of
    marks.
    """
    producers, consumers = graph.producers(), graph.consumers()
    dropped: list[Any] = []
    found = 0
    for last in graph.operators:
        readers = consumers.get(int(last.outputs[0]), [])
        if not _is_wave(graph, last) or any(_is_wave(graph, reader) for reader in readers):
            continue
        row = [last]
        while len(row) < marks.length and (before := producers.get(int(row[-1].inputs[0]))) and _is_wave(graph, before):
            row.append(before)
        if len(row) < marks.length:
            continue  # the network's own
        found += 1
        for reader in readers:
            reader.inputs = np.where(reader.inputs == last.outputs[0], row[-1].inputs[0], reader.inputs)
        dropped += row
    if found != marks.count:
        raise ExportError(
            f"{marks.count} values of the program enter what stays float behind integers, and {found} of the file",
            hint="this is a bug in edgeopt or in litert-torch: please report the model and the recipe",
        )
    graph.operators = [operator for operator in graph.operators if all(operator is not each for each in dropped)]


def _is_wave(graph: Graph, operator: Any) -> bool:
    return graph.kind(operator) in _WAVES_IN_FILE
