"""Layers that a quantized program keeps in float.

TensorFlow's converter makes every layer int8 that stands between integers, even where its weights are float. A mark
before such a layer keeps the converter from that: two operators that have no integer kernel. It is taken out of the
file again.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from edgeopt.networks.bits import float_layers_of_integers
from edgeopt_tflite.graph import Graph

aten = torch.ops.aten

_MARK_IN_FILE = ("SIN", "COS")


def mark_float_layers(program: ExportedProgram, module: GraphModule) -> int:
    """Puts a mark between integers and each float layer, in place, in a program's module; returns how many."""
    nodes = {node.name: node for node in module.graph.nodes}
    marks: dict[Node, Node] = {}  # of each value one, as several layers may read it
    for layer, value in ((nodes[layer.name], nodes[value.name]) for layer, value in float_layers_of_integers(program)):
        if value not in marks:
            with module.graph.inserting_before(layer):
                half = module.graph.call_function(aten.sin.default, (value,))
                marks[value] = module.graph.call_function(aten.cos.default, (half,))
        layer.replace_input_with(value, marks[value])
    module.recompile()
    return len(marks)


def unmark_float_layers(graph: Graph) -> None:
    """Takes the marks out of a file; `audit` then checks that the layers behind them are float."""
    producers, consumers = graph.producers(), graph.consumers()
    first, second = _MARK_IN_FILE
    dropped = []
    for operator in graph.operators:
        before = producers.get(int(operator.inputs[0])) if len(operator.inputs) else None
        if graph.kind(operator) != second or before is None or graph.kind(before) != first:
            continue
        for reader in consumers.get(int(operator.outputs[0]), []):
            reader.inputs = np.where(reader.inputs == operator.outputs[0], before.inputs[0], reader.inputs)
        dropped += [before, operator]
    graph.operators = [operator for operator in graph.operators if all(operator is not each for each in dropped)]
