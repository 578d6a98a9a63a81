"""Rewrites of a converted file that keep its numbers and let XNNPACK take the whole of it.

Each works in place and returns how many operators it changed.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeopt_tflite.graph import Graph

#: Operators of one number that go into XNNPACK as float: it joins DEQUANTIZE, operator and QUANTIZE to a table of 256
#: values. LiteRT's int8 kernel of the first is ten times slower on x86 and cuts the delegated graph in two; those of
#: the others demand one certain scale of the output, which is not the program's.
_TABLES = ("HARD_SWISH", "LOGISTIC", "TANH", "GELU", "ELU")
#: Those, and SOFTMAX: it is no table, but its int8 kernel too demands one certain scale of the output.
_FLOAT_ONLY = (*_TABLES, "SOFTMAX")
_INT8_RANGE = (-128, 127)
#: Operators whose output is never below zero when no input is.
_KEEP_SIGN = ("CONCATENATION", "MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN", "RESHAPE", "TRANSPOSE", "PAD", "ADD", "MUL")
_RECTIFIERS = ("RELU", "RELU6", "RELU_0_TO_1", "LOGISTIC")
_RECTIFYING = (schema.ActivationFunctionType.RELU, schema.ActivationFunctionType.RELU6)


def float_operators(graph: Graph) -> int:
    """Gives int8 operators of `_FLOAT_ONLY` their float form, between a DEQUANTIZE and a QUANTIZE.

    The program says the same, to the bit.
    """
    operators, changed = [], 0
    for operator in graph.operators:
        source, target = int(operator.inputs[0]), int(operator.outputs[0])
        if graph.kind(operator) not in _FLOAT_ONLY or graph.dtype(source) != "int8":
            operators.append(operator)
            continue
        before = graph.add_tensor(graph.shape(source), "float32", like=source)
        after = graph.add_tensor(graph.shape(target), "float32", like=target)
        operator.inputs, operator.outputs = np.array([before], np.int32), np.array([after], np.int32)
        operators += [graph.dequantize(source, before), operator, graph.quantize(after, target)]
        changed += 1
    graph.operators = operators
    return changed


def plain_padding(graph: Graph) -> int:
    """Pads with zero before a max pooling whose input is never below zero.

    Converters pad with the smallest number of the type (PADV2), which XNNPACK does not take.
    """
    producers, consumers = graph.producers(), graph.consumers()
    changed = 0
    for operator in graph.operators:
        if graph.kind(operator) != "PADV2":
            continue
        source, padding, target = int(operator.inputs[0]), int(operator.inputs[1]), int(operator.outputs[0])
        if any(graph.kind(reader) != "MAX_POOL_2D" for reader in consumers.get(target, [])):
            continue
        if _never_negative(graph, source, producers):
            plain = graph.operator("PAD", [source, padding], [target], version=2)  # 2 is the first that takes int8
            operator.opcodeIndex, operator.inputs = plain.opcodeIndex, plain.inputs
            operator.builtinOptions, operator.builtinOptionsType = None, 0
            changed += 1
    return changed


def _never_negative(graph: Graph, tensor: int, producers: dict[int, Any]) -> bool:
    if graph.dtype(tensor) == "int8":
        quantization = graph.quantization(tensor)
        return quantization is not None and quantization[1] == _INT8_RANGE[0]
    if tensor not in producers:
        return False
    operator = producers[tensor]
    if graph.kind(operator) in _RECTIFIERS or _is_rectified(operator):
        return True
    if graph.kind(operator) not in _KEEP_SIGN:
        return False
    values = [int(source) for source in operator.inputs if graph.dtype(int(source)) == graph.dtype(tensor)]
    return all(_never_negative(graph, source, producers) for source in values)


def _is_rectified(operator: Any) -> bool:
    return getattr(operator.builtinOptions, "fusedActivationFunction", None) in _RECTIFYING


def float_islands(graph: Graph) -> int:
    """Leaves int8 operators in float that stand between QUANTIZE and DEQUANTIZE alone, with no int8 layer beside them.

    The conversions around such an operator read and write more bytes than it saves. Where they belong to a table they
    cost nothing, and the operator stays int8. The result is at least as exact as the program's.
    """
    changed = 0
    while island := _next_island(graph):
        _to_float(graph, island)
        changed += 1
    return changed


_ISLANDS = ("ADD", "SUB", "MUL", "MEAN", "CONCATENATION", "MAX_POOL_2D", "AVERAGE_POOL_2D", "RELU", "RELU6")


def _next_island(graph: Graph) -> Any | None:
    producers, consumers = graph.producers(), graph.consumers()
    outputs = set(map(int, graph.main.outputs))
    for operator in graph.operators:
        target = int(operator.outputs[0])
        if graph.kind(operator) not in _ISLANDS or graph.dtype(target) != "int8" or target in outputs:
            continue
        values = _values(graph, operator)
        from_float = all(_is_from_float(graph, value, producers) for value in values)
        to_float = all(graph.kind(reader) == "DEQUANTIZE" for reader in consumers.get(target, []))
        if from_float and to_float:
            return operator
    return None


def _values(graph: Graph, operator: Any) -> list[int]:
    return [int(tensor) for tensor in operator.inputs if graph.dtype(int(tensor)) == "int8"]


def _is_from_float(graph: Graph, tensor: int, producers: dict[int, Any]) -> bool:
    """Whether a tensor is a float one made int8, and not what a table gives."""
    maker = producers.get(tensor)
    if maker is None or graph.kind(maker) != "QUANTIZE" or graph.dtype(int(maker.inputs[0])) != "float32":
        return False
    source = producers.get(int(maker.inputs[0]))
    return source is None or graph.kind(source) not in _TABLES


def _to_float(graph: Graph, operator: Any) -> None:
    producers, consumers = graph.producers(), graph.consumers()
    floats = {value: int(producers[value].inputs[0]) for value in _values(graph, operator)}
    target = int(operator.outputs[0])
    result = graph.add_tensor(graph.shape(target), "float32", like=target)
    operator.inputs = np.array([floats.get(int(tensor), int(tensor)) for tensor in operator.inputs], np.int32)
    operator.outputs = np.array([result], np.int32)
    ends = consumers.get(target, [])
    for end in ends:
        for reader in consumers.get(int(end.outputs[0]), []):
            reader.inputs = np.array(
                [result if tensor == end.outputs[0] else tensor for tensor in reader.inputs], np.int32
            )
        if int(end.outputs[0]) in map(int, graph.main.outputs):
            graph.replace_output(int(end.outputs[0]), result)
    dropped = {id(end) for end in ends}
    dropped |= {id(producers[value]) for value in floats if all(reader is operator for reader in consumers[value])}
    graph.operators = [one for one in graph.operators if id(one) not in dropped]


def set_tensor_types(graph: Graph, dtype: Literal["float32", "int8", "uint8", "int16"]) -> None:
    """Gives the integer input and outputs of a file another type; what was never rounded, such as pixels, stays."""
    (given,) = map(int, graph.main.inputs)
    if _is_other(graph, given, dtype):
        outer = _outer(graph, given, dtype)
        graph.operators = [graph.quantize(outer, given), *graph.operators]
        graph.replace_input(outer)
    for returned in dict.fromkeys(map(int, graph.main.outputs)):
        if _is_other(graph, returned, dtype):
            outer = _outer(graph, returned, dtype)
            last = graph.dequantize(returned, outer) if dtype == "float32" else graph.quantize(returned, outer)
            graph.operators = [*graph.operators, last]
            graph.replace_output(returned, outer)


def _is_other(graph: Graph, tensor: int, dtype: str) -> bool:
    return graph.dtype(tensor) in ("int8", "int16") and graph.dtype(tensor) != dtype


def _outer(graph: Graph, tensor: int, dtype: str) -> int:
    quantization = graph.quantization(tensor)
    assert quantization is not None
    scale, zero_point = quantization
    shifted = (scale, zero_point - _INT8_RANGE[0]) if dtype == "uint8" else None
    return graph.add_tensor(graph.shape(tensor), dtype, shifted)
