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
        logits = graph.main.outputs[0]
        inner = [index for operator in graph.operators for index in operator.outputs if index != logits]
        graph.main.outputs = [logits, *inner]
        for signature in graph.model.signatureDefs or ():
            signature.outputs = signature.outputs[:1]
        copy = request.folder / "tapped.tflite"
        copy.write_bytes(graph.to_bytes())
        self._file = _Shown(copy, threads=request.threads)

    def run(self, batch: NDArray[np.float32] | Pixels) -> Seen:
        """What the file computes of images, one after the other."""
        rows = [(self._file.predict(batch[index : index + 1]), self._file.shown()) for index in range(len(batch))]
        logits = np.concatenate([logits for logits, _ in rows])
        inner = [
            SeenTensor(tensor.name, np.concatenate([tensors[place].values for _, tensors in rows]))
            for place, tensor in enumerate(rows[0][1])
        ]
        return Seen(logits, [SeenTensor(self._file.output_info.name, logits), *inner])

    def close(self) -> None:
        """Frees the file's memory."""
        self._file.close()


class _Shown(TflitePredictor):
    """A predictor of a file whose first output are the logits."""

    shows_inner_values = True

    def shown(self) -> list[SeenTensor]:
        """The other outputs of the last call."""
        return [
            SeenTensor(details["name"], _values(self._file.interpreter.get_tensor(details["index"]), details))
            for details in self._file.outputs[1:]
        ]


def _values(given: NDArray[Any], details: dict[str, Any]) -> NDArray[np.float32]:
    """Float32, whatever the file has."""
    quantization = details["quantization_parameters"]
    scales, zero_points = quantization["scales"], quantization["zero_points"]
    if not np.issubdtype(given.dtype, np.integer) or not len(scales):
        return np.array(given, np.float32)
    values: NDArray[np.float32] = (given.astype(np.float32) - zero_points.astype(np.float32)) * scales
    return values
