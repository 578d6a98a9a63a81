"""Large fully connected layers in int8 as convolutions of an image of one point, with the same result, bit for bit.

ncnn's kernel for a fully connected layer knows no instructions for sums of int8 products on x86, and takes longer than
that for floats; its convolutions have them. The last layer of MobileNetV3-small took a third of its time so, which is
more than the layer around it costs that makes an image of the vector. In small layers it is not.
"""

from __future__ import annotations

from collections.abc import Collection

from edgeopt_ncnn.graph import INT8_TERM, Graph, Layer

FEWEST_WEIGHTS = 1 << 17
_OUTPUTS, _BIAS, _SIZE = 0, 1, 2  # numbers of a fully connected layer's parameters
_KERNEL, _CONVOLUTION_BIAS, _CONVOLUTION_SIZE = 1, 5, 6  # those of a convolution that differ


def as_convolutions(graph: Graph, vectors: Collection[str], fewest: int = FEWEST_WEIGHTS) -> int:
    """Has fully connected layers in int8 of at least `fewest` weights be convolutions, in place; returns how many.

    `vectors` names the layers that take one vector an image. Their weights stand in the `.bin` as those of convolutions
    do.
    """
    chosen = [each for each in graph.layers if each.name in vectors and _is_large(each, fewest)]
    images: list[Layer] = []
    vectors_made: list[Layer] = []
    for layer in chosen:
        place = graph.layers.index(layer)
        own = layer.parameters
        layer.type = "Convolution"
        layer.parameters = {
            _OUTPUTS: own.pop(_OUTPUTS),
            _KERNEL: "1",
            _CONVOLUTION_BIAS: own.pop(_BIAS, "0"),
            _CONVOLUTION_SIZE: own.pop(_SIZE),
            **own,
        }
        (given,), (returned,) = layer.reads, layer.writes
        image, answer = f"{layer.name}.image", f"{layer.name}.answer"
        before = Layer("Reshape", image, [given], [image], {0: "1", 1: "1", 2: "-1"})
        behind = Layer("Flatten", answer, [answer], [returned])
        layer.reads, layer.writes = [image], [answer]
        graph.layers[place : place + 1] = [before, layer, behind]
        images.append(before)
        vectors_made.append(behind)
    _join(graph, vectors_made, images)
    return len(chosen)


def _is_large(layer: Layer, fewest: int) -> bool:
    return layer.type == "InnerProduct" and bool(layer.number(INT8_TERM)) and layer.number(_SIZE) >= fewest


def _join(graph: Graph, vectors: list[Layer], images: list[Layer]) -> None:
    """Takes a vector away that is made of an image and becomes an image again, where nobody else reads it."""
    for vector in vectors:
        readers = graph.readers(vector.writes[0])
        if len(readers) == 1 and any(readers[0] is each for each in images):
            (reader,) = graph.readers(readers[0].writes[0])
            reader.reads = vector.reads
            graph.layers.remove(vector)
            graph.layers.remove(readers[0])
