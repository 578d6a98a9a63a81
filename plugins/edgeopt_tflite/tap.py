"""A LiteRT file that shows its inner values: a copy of it, in which they are outputs of the main subgraph.

The interpreter's own way, `experimental_preserve_all_tensors`, shows nothing of what runs inside a delegate, and
leaving XNNPACK out would show other kernels than the file has. What is an output is computed by XNNPACK itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.plugins import Seen, SeenTensor, TapRequest
from edgeopt_tflite.graph import Graph
from edgeopt_tflite.predictor import TflitePredictor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.plugins import Pixels


class TappedTflite:
    """A copy of a LiteRT file with its inner values as outputs, opened in LiteRT with XNNPACK."""

    how = "a copy of the file with its inner values as further outputs, in LiteRT with XNNPACK"

    def __init__(self, request: TapRequest) -> None:
        graph = Graph(request.path.read_bytes())
        outputs = [int(index) for index in graph.main.outputs]
        inner = [index for operator in graph.operators for index in operator.outputs if index not in outputs]
        graph.main.outputs = [*outputs, *inner]
        copy = request.folder / "tapped.tflite"
        copy.write_bytes(graph.to_bytes())
        self._file, self._outputs = _Shown(copy, threads=request.threads), len(outputs)

    def run(self, batch: NDArray[np.float32] | Pixels) -> Seen:
        """What the file computes of images, one after the other."""
        return Seen.joined([self._call(batch[index : index + 1]) for index in range(len(batch))])

    def _call(self, image: NDArray[np.float32] | Pixels) -> Seen:
        outputs = self._file.predict(image)
        return Seen(outputs[: self._outputs], self._file.shown())

    def close(self) -> None:
        """Frees the file's memory."""
        self._file.close()


class _Shown(TflitePredictor):
    """A predictor of a file that has more outputs than it is asked for."""

    def shown(self) -> list[SeenTensor]:
        """All outputs of the last call."""
        return [
            SeenTensor(details["name"], _values(self._file.interpreter.get_tensor(details["index"]), details))
            for details in self._file.outputs
        ]


def _values(given: NDArray[Any], details: dict[str, Any]) -> NDArray[np.float32]:
    """Float32, whatever the file has."""
    quantization = details["quantization_parameters"]
    scales, zero_points = quantization["scales"], quantization["zero_points"]
    if not np.issubdtype(given.dtype, np.integer) or not len(scales):
        return np.array(given, np.float32)
    values: NDArray[np.float32] = (given.astype(np.float32) - zero_points.astype(np.float32)) * scales
    return values
