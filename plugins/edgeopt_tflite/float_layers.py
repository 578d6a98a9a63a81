"""Layers that a quantized program keeps in float.

TensorFlow's converter makes integers of every layer that stands between integers, whether its weights are or not. A mark before the
layer, of operators that have no integers, keeps it from that; it is taken out of the file again.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.fx import GraphModule, Node

from edgeopt.bits import operator_name
from edgeopt_tflite.graph import Graph

aten = torch.ops.aten

_LAYERS = ("aten.conv", "aten.linear", "aten.addmm", "aten.mm")
_MARK = (aten.sin.default, aten.cos.default)
_MARK_IN_FILE = ("SIN", "COS")


def mark_float_layers(module: GraphModule) -> int:
    """Puts a mark between integers and the layers whose weight is a float constant, in place; returns how many there are."""
    marks: dict[Node, Node] = {}  # of each value one, as several layers may read it
    computed: set[Node] = set()  # from the picture; a mark before constants would be computed as well
    for node in list(module.graph.nodes):
        if node.op == "placeholder" or not computed.isdisjoint(node.all_input_nodes):
            computed.add(node)
        if not operator_name(node).startswith(_LAYERS):
            continue
        first = 1 if operator_name(node).startswith("aten.addmm") else 0  # addmm has its bias first
        value, weight = node.args[first : first + 2]
        if value not in computed or not _is_float_constant(weight) or not _is_dequantized(value):
            continue  # between floats, layers stay what they are
        if value not in marks:
            with module.graph.inserting_before(node):
                first_half, second_half = _MARK
                half = module.graph.call_function(first_half, (value,))
                marks[value] = module.graph.call_function(second_half, (half,))
        node.replace_input_with(value, marks[value])
    module.recompile()
    return len(marks)


def unmark_float_layers(graph: Graph) -> None:
    """Takes the marks out of a file; that the layers behind them are float is for the audit to find."""
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


def _is_float_constant(weight: Node) -> bool:
    """Whether a weight is a parameter, perhaps turned, and not dequantized."""
    chain = _chain(weight)
    return chain[-1].op == "get_attr" and not any("dequantize" in operator_name(node) for node in chain)


def _is_dequantized(value: Node) -> bool:
    """Whether a value, perhaps turned, comes from integers."""
    return any("dequantize" in operator_name(node) for node in _chain(value))


def _chain(node: Node) -> list[Node]:
    """A node and those before it, up to one that has no input or several."""
    chain = [node]
    while len(chain[-1].all_input_nodes) == 1:
        chain += chain[-1].all_input_nodes
    return chain
