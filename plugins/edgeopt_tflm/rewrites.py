"""A rewrite of a file that keeps every bit of its answers and needs less RAM. Works in place."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeopt_tflite.graph import Graph

_AXES = (1, 2)  # height and width, of an image and of a kernel


def absorb_padding(graph: Graph) -> int:
    """Takes away padding in front of convolutions that can do it themselves; returns how many there were.

    PyTorch pads by one on all sides before a kernel of three that steps by two; TFLite's word for padding, SAME, pads
    the end alone, so converters write a PAD, whose output lies in RAM beside its input. SAME pads by one at the
    beginning where the size is odd, or the kernel has four rows, of which the last may be zero: a few more weights, and
    products with zero, for the largest activation of many networks. Kernels with zeros are given to depthwise
    convolutions alone, which have few weights.
    """
    readers = graph.consumers()
    removed: list[Any] = []
    for operator, reader in pairwise(graph.operators):
        if graph.kind(operator) != "PAD" or readers.get(int(operator.outputs[0])) != [reader]:
            continue
        kernel = _kernel(graph, operator, reader)
        if kernel is not None and len(readers[int(reader.inputs[1])]) == 1:
            _set_kernel(graph, int(reader.inputs[1]), kernel)
            reader.inputs = np.array([operator.inputs[0], *reader.inputs[1:]], np.int32)
            reader.builtinOptions.padding = schema.Padding.SAME
            removed.append(operator)
    graph.operators = [each for each in graph.operators if not any(each is one for one in removed)]
    return len(removed)


def _kernel(graph: Graph, padding: Any, reader: Any) -> tuple[int, int] | None:
    """Height and width of the kernel with which a convolution pads as the PAD before it does; None for none."""
    options, kind = reader.builtinOptions, graph.kind(reader)
    widths = graph.constant(int(padding.inputs[1]))
    if kind not in ("CONV_2D", "DEPTHWISE_CONV_2D") or int(reader.inputs[0]) != int(padding.outputs[0]):
        return None
    if widths is None or widths.reshape(-1, 2)[[0, 3]].any() or options.padding != schema.Padding.VALID:
        return None
    if options.dilationHFactor != 1 or options.dilationWFactor != 1 or graph.constant(int(reader.inputs[1])) is None:
        return None
    size, made = graph.shape(int(padding.inputs[0])), graph.shape(int(reader.outputs[0]))
    kernel = graph.shape(int(reader.inputs[1]))
    found: list[int] = []
    for axis, stride in zip(_AXES, (options.strideH, options.strideW), strict=True):
        for rows in (kernel[axis], kernel[axis] + 1)[: 2 if kind == "DEPTHWISE_CONV_2D" else 1]:
            total = max((made[axis] - 1) * stride + rows - size[axis], 0)
            if made[axis] == -(-size[axis] // stride) and total // 2 == widths.reshape(-1, 2)[axis][0]:
                found.append(rows)
                break
    return (found[0], found[1]) if len(found) == len(_AXES) else None


def _set_kernel(graph: Graph, tensor: int, kernel: tuple[int, int]) -> None:
    """Gives a weight more rows and columns, of zeros, at the end."""
    shape, values = graph.shape(tensor), graph.constant(tensor)
    assert values is not None  # as `_kernel` has seen
    widths = [(0, 0), (0, kernel[0] - shape[1]), (0, kernel[1] - shape[2]), (0, 0)]
    padded = np.pad(values.reshape(shape), widths)
    graph.set_constant(tensor, padded.ravel(), graph.dtype(tensor))
    graph.main.tensors[tensor].shape = np.array(padded.shape, np.int32)
