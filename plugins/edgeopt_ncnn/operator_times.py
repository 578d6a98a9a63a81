"""What each layer of a file takes in ncnn, of which the wheel has no counters: one value after the other is asked for,
and those before it are kept, so that each question computes one layer.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from edgeopt.plugins import OperatorTime, OperatorTimesRequest
from edgeopt_ncnn.graph import Graph, Layer
from edgeopt_ncnn.on_device import OpenFile, open_file, read_param

_AS_IT_IS = 1  # how a value is given: as the next layer would take it
_NAME_OF_PNNX = re.compile(r"[a-z0-9]+_\d+")  # such as convrelu_3
_WEIGHTED = ("Convolution", "ConvolutionDepthWise", "InnerProduct")


def operator_times(request: OperatorTimesRequest) -> list[OperatorTime]:
    """The layers in the order in which they are called, in a network that keeps all of its values."""
    graph = Graph(read_param(request.path).layers.decode())
    layers = [each for each in graph.layers if each.type != "Input"]
    file = open_file(request.path, request.threads)
    try:
        calls = [_call(file, layers, request.batch[0]) for _ in range(request.warmup + request.runs)]
    finally:
        file.close()
    medians = map(median, zip(*calls[request.warmup :], strict=True))
    return [OperatorTime(layer.name, layer.type, ms, _module(layer)) for layer, ms in zip(layers, medians, strict=True)]


def _call(file: OpenFile, layers: Sequence[Layer], image: Any) -> list[float]:
    """What each layer takes for one image, ms; what holds the values is gone before the network is."""
    extractor = file.extractor(image)
    extractor.set_light_mode(False)
    times = []
    for layer in layers:
        start = time.perf_counter()
        extractor.extract(layer.writes[0], _AS_IT_IS)
        times.append((time.perf_counter() - start) * 1e3)
    return times


def _module(layer: Layer) -> str:
    """The program's layer, by whose name the exporter calls those that have weights, where it knows them."""
    return "" if layer.type not in _WEIGHTED or _NAME_OF_PNNX.fullmatch(layer.name) else layer.name
