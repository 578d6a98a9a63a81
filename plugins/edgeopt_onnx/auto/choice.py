"""Leave those operators of an int8 graph in float that cost more in int8.

Each operator that ONNX Runtime could fuse computes in int8 or in float, and values are converted between two operators
that differ. The cheapest choice is a minimum cut of a network with two ends, int8 and float. Its edges weigh what
`auto.costs` holds: an operator's cost in float joins it to the int8 end, its cost in int8 joins it to the float end,
and the cost of a conversion joins it to its neighbours. The cut leaves each operator at the end that it computes in.

Stone assigns program modules to two processors in the same way: "Multiprocessor Scheduling with the Aid of Network Flow
Algorithms" (IEEE Transactions on Software Engineering 3.1, 1977, https://doi.org/10.1109/TSE.1977.233840).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import networkx as nx
import onnx_ir

from edgeopt_onnx.auto.costs import Costs, Kind
from edgeopt_onnx.operators import LAYOUT, WEIGHTED
from edgeopt_onnx.quantization import (
    DEQUANTIZE,
    QUANTIZE,
    affine,
    constant,
    producer,
    readers,
    scaled,
)

_CLIPS = ("Relu", "Clip")
_POOLS = ("ReduceMean", "GlobalAveragePool", "AveragePool")
_FREE = (*LAYOUT, "MaxPool", "Concat")
"""Operators that take about as long in either precision."""
_FULLY_CONNECTED = ("Gemm", "MatMul")
_FEW_CHANNELS = 8  # below it, integer kernels do not fill their vectors
_INT8, _FLOAT = "int8", "float"
_NEVER = 10**15  # nanoseconds, more than any cut costs


@dataclass(frozen=True)
class _Unit:
    """An operator and the Relu or Clip that is fused into it; `output` is what both give."""

    node: onnx_ir.Node
    output: onnx_ir.Value

    @property
    def name(self) -> str:
        return self.output.name or ""


def keep_cheaper_in_float(graph: onnx_ir.Graph, costs: Costs) -> tuple[str, ...]:
    """Take the quantizers away from operators that cost more in int8; returns the names of the layers left in float.

    Their weights stay the int8 values they are, and are scaled when the file is opened. It must run before `rewrites`,
    while the graph still has its Relu and Clip nodes.
    """
    units = _units(graph)
    network = nx.DiGraph()
    network.add_nodes_from((_INT8, _FLOAT))
    for unit in units.values():
        kind_and_work = _kind_and_work(unit) if _is_fusable(unit) else None
        if kind_and_work is None:  # the runtime has no integer kernel for it
            network.add_edge(unit.name, _FLOAT, capacity=_NEVER)
            continue
        kind, work = kind_and_work
        in_float, in_int8 = (costs.kinds[kind][side].of(work) for side in (0, 1)) if kind else (0, 0)
        network.add_edge(_INT8, unit.name, capacity=in_float)
        network.add_edge(unit.name, _FLOAT, capacity=in_int8)
    for source, reader, value in _edges(graph, units):
        capacity = costs.kinds["conversion"][0].of(_elements(value))
        for one, other in ((source, reader), (reader, source)):
            if network.has_edge(one, other):
                network[one][other]["capacity"] += capacity
            else:
                network.add_edge(one, other, capacity=capacity)
    _, (int8, _) = nx.minimum_cut(network, _INT8, _FLOAT)
    return _left_in_float(graph, units, int8)


def _units(graph: onnx_ir.Graph) -> dict[onnx_ir.Node, _Unit]:
    """The unit of each node that computes, quantizers and what only changes weights left out."""
    units: dict[onnx_ir.Node, _Unit] = {}
    constants: set[onnx_ir.Value] = set(graph.initializers.values())
    for node in graph:
        inputs = [value for value in node.inputs if value is not None]
        if all(value in constants for value in inputs):
            constants.update(node.outputs)
            continue
        if node.op_type in (QUANTIZE, DEQUANTIZE) or node in units:
            continue
        unit = _Unit(node, node.outputs[0])
        units[node] = unit
        after = readers(unit.output)
        if node.op_type not in _CLIPS and len(after) == 1 and after[0].op_type in _CLIPS:
            units[node] = units[after[0]] = _Unit(node, after[0].outputs[0])
    return units


def _is_fusable(unit: _Unit) -> bool:
    """Whether all that the unit reads is dequantized, and all that reads it quantizes.

    Fully connected layers may also give floats: the runtime has a kernel for that.
    """
    after = readers(unit.output)
    quantizing = [each for each in after if each.op_type == QUANTIZE]
    gives_floats = unit.node.op_type in _FULLY_CONNECTED and unit.output is unit.node.outputs[0] and not quantizing
    given = [value for value in unit.node.inputs[:2] if value is not None and constant(value) is None]
    return (gives_floats or (bool(after) and quantizing == after and not unit.output.is_graph_output())) and all(
        producer(value, DEQUANTIZE) is not None for value in given
    )


def _kind_and_work(unit: _Unit) -> tuple[Kind | None, int] | None:
    """The kind and the work that give a unit's cost.

    The kind is None where the unit costs nothing, and the result is None where there is no integer kernel for the
    operator.
    """
    node = unit.node
    if node.op_type in _FREE:
        return None, 0
    if node.op_type in ("Add", "Mul"):
        return "binary", _elements(unit.output)
    if node.op_type in _CLIPS:
        return "clip", _elements(unit.output)
    if node.op_type in _POOLS:
        return "pool", _elements(node.inputs[0])
    if node.op_type == "Conv":
        weight = _shape(node.inputs[1])
        work = prod(weight) * prod(_shape(node.outputs[0])[2:])
        return _convolution(weight, node.attributes.get_int("group", 1)), work
    if node.op_type in _FULLY_CONNECTED:
        return "fully-connected", _elements(node.inputs[1]) * prod(_shape(node.inputs[0])[:-1])
    return None


def _convolution(weight: list[int], groups: int) -> Kind:
    if groups > 1 and weight[1] == 1:
        return "depthwise"
    if weight[1] < _FEW_CHANNELS:
        return "narrow"
    return "pointwise" if prod(weight[2:]) == 1 else "dense"


def _shape(value: onnx_ir.Value | None) -> list[int]:
    """A value's shape for a batch of one: what is not known counts as 1."""
    if value is None or value.shape is None:
        return []
    return [size if isinstance(size, int) else 1 for size in value.shape]


def _elements(value: onnx_ir.Value | None) -> int:
    return prod(_shape(value))


def _edges(graph: onnx_ir.Graph, units: dict[onnx_ir.Node, _Unit]) -> list[tuple[str, str, onnx_ir.Value]]:
    """Pairs of units between which a quantized value goes, and the value; the graph's ends count as float."""
    edges = []
    for reader, unit in units.items():
        for value in reader.inputs:
            if value is None:
                continue
            source = _through_quantizers(value)
            maker = source.producer()
            if source is value:  # a float whichever side its maker is on
                continue
            if maker in units:
                name = units[maker].name
            elif source in graph.inputs:
                name = _FLOAT
            else:
                continue
            if name != unit.name:
                edges.append((name, unit.name, source))
    for output in graph.outputs:
        maker = (source := _through_quantizers(output)).producer()
        if maker in units and source is not output:
            edges.append((units[maker].name, _FLOAT, source))
    return edges


def _through_quantizers(value: onnx_ir.Value) -> onnx_ir.Value:
    """The value before it was quantized and dequantized."""
    while (node := producer(value, QUANTIZE, DEQUANTIZE)) is not None and node.inputs[0] is not None:
        value = node.inputs[0]
    return value


def _left_in_float(graph: onnx_ir.Graph, units: dict[onnx_ir.Node, _Unit], int8: set[str]) -> tuple[str, ...]:
    """Drop the quantizers between what computes in float; returns the layers that do."""

    def float_source(value: onnx_ir.Value) -> onnx_ir.Value | None:
        source = _through_quantizers(value)
        maker = source.producer()
        is_float = units[maker].name not in int8 if maker in units else source.is_graph_input()
        return source if is_float else None

    for node, unit in units.items():
        if unit.name in int8:
            continue
        for index, value in enumerate(node.inputs):
            if value is not None and (source := float_source(value)) is not None:
                node.replace_input_with(index, source)
    for index, output in enumerate(graph.outputs):
        if (source := float_source(output)) is not None and source is not output:
            source.name, output.name = output.name, f"{output.name}_dequantized"
            graph.outputs[index] = source
    left = [node for node, unit in units.items() if unit.name not in int8 and node.op_type in WEIGHTED]
    for layer in left:
        _fold_weights_at_load(graph, layer)
    return tuple(layer.name or "" for layer in left)


def _fold_weights_at_load(graph: onnx_ir.Graph, layer: onnx_ir.Node) -> None:
    dequantize = producer(layer.inputs[1], DEQUANTIZE)
    if dequantize is None:
        return
    parameters, integers = affine(dequantize), dequantize.inputs[0]
    if parameters is None or integers is None or constant(integers) is None or parameters.zero_point.any():
        return
    axis = dequantize.attributes.get_int("axis", 1)
    values = scaled(graph, layer, integers, parameters.scale, axis, folded_at_load=True)
    layer.replace_input_with(1, values)
