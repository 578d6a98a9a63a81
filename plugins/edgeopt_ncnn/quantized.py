"""The integers of a program put into a network of ncnn, as ncnn's own `ncnn2int8` writes them.

A weight stands in the `.bin` behind four bytes that say its type, and a layer in int8 has, behind its weight and its
bias, the reciprocals of the scales of its weight and of what enters. Where what it gives goes to such layers alone, it
hands them integers, and has their scale as well.
Source: https://github.com/Tencent/ncnn, `tools/quantize/ncnn2int8.cpp` and `src/modelbin.cpp`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeopt_ncnn.graph import Graph, Layer
from edgeopt_ncnn.int8_layers import Int8Layer

_FLOAT32, _INT8 = (0).to_bytes(4, "little"), (0x000D4B38).to_bytes(4, "little")
_ALIGNED = 4
_CONVOLUTIONS = ("Convolution", "ConvolutionDepthWise")
_SIZE, _BIAS = {"InnerProduct": 2}, {"InnerProduct": 1}  # numbers of parameters, where they are not 6 and 5
_TERM = {"Convolution": 2, "InnerProduct": 2, "ConvolutionDepthWise": 1}
_HANDS_INTEGERS = 100
_INT8_TERM = 8  # the number of the parameter


@dataclass
class _Placed:
    """A layer of the file that is one of the program: its weight begins at `start` of the `.bin`."""

    layer: Layer
    rounded: Int8Layer
    start: int

    @property
    def outputs(self) -> int:
        return self.layer.number(0)

    @property
    def bias(self) -> slice:
        """Where the bias stands, which follows the weight."""
        start = self.start + len(_FLOAT32) + self.rounded.weight.nbytes
        has_bias = self.layer.number(_BIAS.get(self.layer.type, 5))
        return slice(start, start + 4 * self.outputs * has_bias)


def quantize(graph: Graph, weights: bytes, layers: Sequence[Int8Layer]) -> tuple[bytes, tuple[str, ...]]:
    """Makes layers of a network compute in int8, in place, and gives them their names in the program.

    `weights` are the network's own, in float32; returns the new ones, with the names of layers that are not found: what
    pnnx made something else of stays in float.
    """
    placed = _find(graph, weights, layers)
    by_layer = {id(each.layer): each for each in placed}
    parts, end = [], 0
    for each in placed:
        each.layer.name = each.rounded.name
        integers = each.rounded.integers.tobytes()
        scales = [np.reciprocal(each.rounded.weight_scales), [1 / each.rounded.input_scale]]
        term = _TERM[each.layer.type]
        if (given := _scale_behind(graph, each.layer, by_layer)) is not None:
            term += _HANDS_INTEGERS
            scales.append([1 / given])
        each.layer.parameters[_INT8_TERM] = str(term)
        parts += [weights[end : each.start], _INT8, integers, b"\0" * (-len(integers) % _ALIGNED)]
        parts += [weights[each.bias], *(np.asarray(scale, dtype="<f4").tobytes() for scale in scales)]
        end = each.bias.stop
    found = {id(each.rounded) for each in placed}
    return b"".join([*parts, weights[end:]]), tuple(each.name for each in layers if id(each) not in found)


def _find(graph: Graph, weights: bytes, layers: Sequence[Int8Layer]) -> list[_Placed]:
    """Layers by their weights, in the order of the `.bin`, which is that of the graph."""
    placed: list[_Placed] = []
    left, end = list(layers), 0
    for layer in graph.layers:
        if layer.type not in _TERM:
            continue
        size = layer.number(_SIZE.get(layer.type, 6))
        found = [
            _Placed(layer, each, start)
            for each in left
            if each.weight.size == size
            if (start := weights.find(_FLOAT32 + each.weight.tobytes(), end)) >= 0
        ]
        if not found:
            continue
        first = min(found, key=lambda each: each.start)
        placed.append(first)
        left.remove(first.rounded)
        end = first.bias.stop
    return placed


def _scale_behind(graph: Graph, layer: Layer, placed: dict[int, _Placed]) -> float | None:
    """The scale of what all readers of a convolution take, where they are convolutions in int8 that take the same."""
    if layer.type not in _CONVOLUTIONS:
        return None
    readers = graph.readers(layer.writes[0])
    if len(readers) == 1 and readers[0].type == "Split":
        readers = [each for blob in readers[0].writes for each in graph.readers(blob)]
    scales = {
        placed[id(each)].rounded.input_scale if each.type in _CONVOLUTIONS and id(each) in placed else None
        for each in readers
    }
    return scales.pop() if len(scales) == 1 else None
