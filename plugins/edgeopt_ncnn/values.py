"""Inner values of a file, and what each of its layers takes, of which the wheel of ncnn has no counters.

ncnn computes whichever value is asked for and, where it is told to, keeps those before it. So values are asked for in
their order, and each question computes one layer.
"""

from __future__ import annotations

import re
import time
from contextlib import closing
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.plugins import OperatorTime, OperatorTimesRequest, Seen, SeenTensor, TapRequest, as_outputs
from edgeopt_ncnn.graph import INT8_TERM, WEIGHTED, Graph, Layer
from edgeopt_ncnn.on_device import OpenFile, open_file, read_param
from edgeopt_ncnn.rewrites.rounding import LARGEST
from edgeopt_ncnn.rewrites.traced import trace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.plugins import Pixels

_AS_IT_IS = 1  # how a value is given: as the next layer would take it
_NAME_OF_PNNX = re.compile(r"[a-z0-9]+_\d+")  # such as convrelu_3


def _layers(request: TapRequest | OperatorTimesRequest) -> list[Layer]:
    return Graph(read_param(request.path).layers.decode()).layers


def _keeping(file: OpenFile, image: Any) -> Any:
    """What computes values of one image, and keeps them."""
    extractor = file.extractor(image)
    extractor.set_light_mode(False)
    return extractor


class TappedNcnn:
    """A file of ncnn, opened, of which every value can be had.

    What enters a layer in int8 is in float between the layers, and rounded by the layer itself; what the layer makes of
    it is shown, as the program has it, and the float beside it.
    """

    how = "the file itself in ncnn, which is asked for each value; what a layer rounds as it enters is rounded here"

    def __init__(self, request: TapRequest) -> None:
        layers, program = _layers(request), {each.name: each for each in trace(request.state).layers}
        copies = {blob: each.reads[0] for each in layers if each.type == "Split" for blob in each.writes}
        self._blobs = [blob for each in layers for blob in each.writes if blob not in copies]
        self._entering = [
            (copies.get(layer.reads[0], layer.reads[0]), source.rounding.input_scale, source.entering)
            for layer in layers
            if (source := program.get(layer.name)) and source.rounding and layer.number(INT8_TERM)
        ]
        self._file = open_file(request.path, request.threads)

    def run(self, batch: NDArray[np.float32] | Pixels) -> Seen:
        """What the file computes of images."""
        return Seen.joined([self._call(image) for image in batch])

    def _call(self, image: Any) -> Seen:
        extractor = _keeping(self._file, image)
        blobs = {name: np.array(extractor.extract(name)[1])[None] for name in self._blobs}
        inner = [SeenTensor(name, each) for name, each in blobs.items() if each.dtype == np.float32]
        entering = [
            SeenTensor(f"{blob} as {node}", _rounded(blobs[blob], scale), node) for blob, scale, node in self._entering
        ]
        return Seen(as_outputs(self._file.outputs_of(extractor)), [*inner, *entering])

    def close(self) -> None:
        """Frees the file's memory."""
        self._file.close()


def _rounded(values: NDArray[Any], scale: float) -> NDArray[np.float32]:
    """What a layer takes for values that enter it, which are integers already where a layer in int8 gave them."""
    steps = values if values.dtype == np.int8 else np.clip(np.rint(values / scale), -LARGEST, LARGEST)
    return np.asarray(steps * scale, dtype=np.float32)


def operator_times(request: OperatorTimesRequest) -> list[OperatorTime]:
    """The layers in the order in which they are called, in a network that keeps all of its values."""
    layers = [each for each in _layers(request) if each.type != "Input"]
    with closing(open_file(request.path, request.threads)) as file:
        calls = [_times(file, layers, request.batch[0]) for _ in range(request.warmup + request.runs)]
    medians = map(median, zip(*calls[request.warmup :], strict=True))
    return [OperatorTime(layer.name, layer.type, ms, _module(layer)) for layer, ms in zip(layers, medians, strict=True)]


def _times(file: OpenFile, layers: list[Layer], image: Any) -> list[float]:
    """What each layer takes for one image, ms; what holds the values is gone before the network is."""
    extractor, times = _keeping(file, image), []
    for layer in layers:
        start = time.perf_counter()
        extractor.extract(layer.writes[0], _AS_IT_IS)
        times.append((time.perf_counter() - start) * 1e3)
    return times


def _module(layer: Layer) -> str:
    """The program's layer, by whose name the exporter calls those that have weights, where it knows them."""
    return "" if layer.type not in WEIGHTED or _NAME_OF_PNNX.fullmatch(layer.name) else layer.name
