"""The integers of a program put into a network of ncnn, as ncnn's own `ncnn2int8` writes them.

A weight stands in the `.bin` behind four bytes that say its type, and a layer in int8 has, behind its weight and its
bias, the reciprocals of the scales of its weight and of what enters. Where what it gives goes to such layers alone, it
hands them integers, and has their scale as well. Weights that stay in float take two bytes.
Source: https://github.com/Tencent/ncnn, `tools/quantize/ncnn2int8.cpp` and `src/modelbin.cpp`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeopt_ncnn.graph import INT8_TERM, Graph, Layer
from edgeopt_ncnn.rewrites.rounding import Rounding, Weighted

_FLOAT32, _FLOAT16, _INT8 = (tag.to_bytes(4, "little") for tag in (0, 0x01306B47, 0x000D4B38))
_ALIGNED = 4
_CONVOLUTIONS = ("Convolution", "ConvolutionDepthWise")
_SIZE, _BIAS = {"InnerProduct": 2}, {"InnerProduct": 1}  # numbers of parameters, where they are not 6 and 5
_TERM = {"Convolution": 2, "InnerProduct": 2, "ConvolutionDepthWise": 1}
_HANDS_INTEGERS = 100
_WEIGHTLESS = {
    *("Input", "Split", "Concat", "Slice", "Crop", "Reshape", "Flatten", "Permute", "Squeeze", "ExpandDims", "Padding"),
    *("Pooling", "Interp", "Reduction", "BinaryOp", "UnaryOp", "Eltwise", "ReLU", "Clip", "Sigmoid", "TanH", "Swish"),
    *("HardSwish", "HardSigmoid", "GELU", "ELU", "Mish", "SELU", "Softmax", "Dropout", "ShuffleChannel", "Noop"),
    *("PixelShuffle", "MatMul", "Tile", "Normalize", "SDPA", "Softplus", "Fold", "Unfold", "Packing", "Cast", "Erf"),
}
"""Layers without anything in the `.bin`; behind all others, the place of the next weight is not known."""


@dataclass(frozen=True, eq=False)
class Placed:
    """A layer of the file whose weight of `size` numbers begins at `start` of the `.bin`, and the program's layer."""

    layer: Layer
    start: int
    source: Weighted | None

    @property
    def weight(self) -> slice:
        """Where the weight stands, with what says its type."""
        return slice(self.start, self.start + len(_FLOAT32) + 4 * _size(self.layer))

    @property
    def bias(self) -> slice:
        """Where the bias stands, which follows the weight."""
        has_bias = self.layer.number(_BIAS.get(self.layer.type, 5))
        return slice(self.weight.stop, self.weight.stop + 4 * self.layer.number(0) * has_bias)

    @property
    def rounding(self) -> Rounding | None:
        """How the program rounds the layer."""
        return None if self.source is None else self.source.rounding


def quantize(graph: Graph, weights: bytes, layers: Sequence[Weighted]) -> tuple[bytes, tuple[str, ...]]:
    """Makes those layers of a network that the program rounds compute in int8, in place, and names them as the program.

    `weights` are the network's own, in float32; returns the new ones, with the names of layers that the program rounds
    and the file does not: what ncnn has in float alone, and what pnnx made something else of.
    """
    placed = find_layers(graph, weights, layers)
    by_layer = {id(each.layer): each for each in placed}
    parts, end = [], 0
    for each in placed:
        parts += [weights[end : each.start]]
        if (rounding := each.rounding) is None:
            values = np.frombuffer(weights[each.weight][len(_FLOAT32) :], "<f4").astype("<f2").tobytes()
            parts += [_FLOAT16, values, b"\0" * (-len(values) % _ALIGNED), weights[each.bias]]
        else:
            integers = rounding.integers.tobytes()
            scales = [np.reciprocal(rounding.weight_scales), [1 / rounding.input_scale]]
            term = _TERM[each.layer.type]
            if (given := _scale_behind(graph, each.layer, by_layer)) is not None:
                term += _HANDS_INTEGERS
                scales.append([1 / given])
            each.layer.parameters[INT8_TERM] = str(term)
            parts += [_INT8, integers, b"\0" * (-len(integers) % _ALIGNED), weights[each.bias]]
            parts += [np.asarray(scale, dtype="<f4").tobytes() for scale in scales]
        if each.source is not None:
            each.layer.name = each.source.name
        end = each.bias.stop
    in_int8 = {id(each.source) for each in placed if each.rounding}
    in_float = tuple(each.name for each in layers if each.is_rounded and id(each) not in in_int8)
    return b"".join([*parts, weights[end:]]), in_float


def name_layers(graph: Graph, layers: Sequence[Weighted]) -> None:
    """Calls the layers of a network in float as the program does, in place, where they are as many, of the same sizes
    in the same order: pnnx folds BatchNorms, so that their weights are others.
    """
    own = [each for each in graph.layers if each.type in _TERM]
    if [_size(each) for each in own] == [each.weight.size for each in layers]:
        for layer, source in zip(own, layers, strict=True):
            layer.name = source.name


def find_layers(graph: Graph, weights: bytes, layers: Sequence[Weighted]) -> list[Placed]:
    """The network's convolutions and fully connected layers, known as the program's by their weights."""
    placed: list[Placed] = []
    left, end, is_known = list(layers), 0, True
    for layer in graph.layers:
        if layer.type not in _TERM:
            is_known &= layer.type in _WEIGHTLESS
            continue
        size = _size(layer)
        found = [
            Placed(layer, start, each)
            for each in left
            if each.weight.size == size and (start := _find(weights, each, end, is_there=is_known)) >= 0
        ]
        if found:
            placed.append(min(found, key=lambda each: each.start))
            left.remove(placed[-1].source)  # type: ignore[arg-type]  # it has one
        elif is_known:
            placed.append(Placed(layer, end, None))
        else:
            continue  # somewhere behind the weights of other layers: left as it is
        end, is_known = placed[-1].bias.stop, True
    return placed


def _size(layer: Layer) -> int:
    """How many numbers a layer's weight has."""
    return layer.number(_SIZE.get(layer.type, 6))


def _find(weights: bytes, layer: Weighted, end: int, *, is_there: bool) -> int:
    """Where the weight of a layer stands, which begins at `end` or, where that is not known, behind it; -1 if not."""
    own = _FLOAT32 + layer.weight.tobytes()
    if weights.startswith(own, end):
        return end
    return -1 if is_there else weights.find(own, end)


def _scale_behind(graph: Graph, layer: Layer, placed: dict[int, Placed]) -> float | None:
    """The scale of what all readers of a convolution take, where they are convolutions in int8 that take the same."""
    if layer.type not in _CONVOLUTIONS:
        return None
    readers = graph.readers(layer.writes[0])
    if len(readers) == 1 and readers[0].type == "Split":
        readers = [each for blob in readers[0].writes for each in graph.readers(blob)]
    convolutions = {key: each for key, each in placed.items() if each.layer.type in _CONVOLUTIONS}
    roundings = [convolutions[id(each)].rounding if id(each) in convolutions else None for each in readers]
    scales = {None if each is None else each.input_scale for each in roundings}
    return scales.pop() if len(scales) == 1 else None
