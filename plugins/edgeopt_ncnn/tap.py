"""A file that shows its inner values: ncnn computes whichever is asked for, and keeps those before it.

What enters a layer in int8 is in float between the layers, and rounded by the layer itself; what the layer makes of it
is shown, as the program has it, and the float beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.plugins import Seen, SeenTensor, TapRequest, as_outputs, joined
from edgeopt_ncnn.graph import Graph, Layer
from edgeopt_ncnn.on_device import open_file, read_param
from edgeopt_ncnn.rewrites.rounding import LARGEST, Weighted
from edgeopt_ncnn.rewrites.traced import trace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.plugins import Pixels

_INT8_TERM = 8  # the number of the parameter


@dataclass(frozen=True, eq=False)
class _Entering:
    """What enters a layer in int8: the blob, its scale, and the program's node."""

    blob: str
    scale: float
    node: str

    def rounded(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """What the layer takes for these values, which are integers already where a layer in int8 gave them."""
        steps = values if values.dtype == np.int8 else np.clip(np.rint(values / self.scale), -LARGEST, LARGEST)
        return np.asarray(steps * self.scale, dtype=np.float32)


class TappedNcnn:
    """A file of ncnn, opened, of which every value can be had."""

    how = "the file itself in ncnn, which is asked for each value; what a layer rounds as it enters is rounded here"

    def __init__(self, request: TapRequest) -> None:
        graph = Graph(read_param(request.path).layers.decode())
        program = {each.name: each for each in trace(request.state).layers}
        copies = {blob: each.reads[0] for each in graph.layers if each.type == "Split" for blob in each.writes}
        self._blobs = [blob for each in graph.layers for blob in each.writes if blob not in copies]
        self._entering = [each for layer in graph.layers if (each := _entering(layer, program.get(layer.name), copies))]
        self._file = open_file(request.path, request.threads)

    def run(self, batch: NDArray[np.float32] | Pixels) -> Seen:
        """What the file computes of images."""
        calls = [self._call(image) for image in batch]
        outputs = as_outputs(joined([outputs for outputs, _ in calls]))
        blobs = {name: np.stack([inner[name] for _, inner in calls]) for name in self._blobs}
        inner = [SeenTensor(name, each) for name, each in blobs.items() if each.dtype == np.float32]
        entering = [
            SeenTensor(f"{each.blob} as {each.node}", each.rounded(blobs[each.blob]), each.node)
            for each in self._entering
        ]
        return Seen(outputs, [*inner, *entering])

    def close(self) -> None:
        """Frees the file's memory."""
        self._file.close()

    def _call(self, image: Any) -> tuple[tuple[NDArray[np.float32], ...], dict[str, NDArray[Any]]]:
        """The outputs for one image, and all blobs."""
        extractor = self._file.extractor(image)
        extractor.set_light_mode(False)
        inner = {name: np.array(extractor.extract(name)[1]) for name in self._blobs}
        return self._file.outputs_of(extractor), inner


def _entering(layer: Layer, program: Weighted | None, copies: Mapping[str, str]) -> _Entering | None:
    """What enters a layer of the file, None where it stays in float; `copies` are blobs that repeat another."""
    if program is None or program.rounding is None or not layer.number(_INT8_TERM):
        return None
    return _Entering(copies.get(layer.reads[0], layer.reads[0]), program.rounding.input_scale, program.entering)
