"""A file that shows its inner values: its graph, whose rounded values are further outputs.

OpenVINO computes in integers between one rounding and the next, and fuses what lies there. A float within would take
that apart; what is rounded leaves it as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import openvino

from edgeopt.plugins import Seen, SeenTensor, TapRequest, as_outputs
from edgeopt_openvino.on_device import OpenFile, compiled, read_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.plugins import Pixels


@dataclass(frozen=True)
class _Rounded:
    """A rounding by its name, and what brings its values back to what is rounded: they are integers where the next
    operator takes these, and begin at zero where a bias has the rest.
    """

    name: str
    factor: float
    shift: float

    def values(self, given: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the file's values stand for."""
        values: NDArray[np.float32] = given * np.float32(self.factor) + np.float32(self.shift)
        return values


class TappedOpenVino:
    """The graph of a file with what it rounds as further outputs, opened in OpenVINO on the processor."""

    how = "the file's graph with what it rounds as further outputs, in OpenVINO"

    def __init__(self, request: TapRequest) -> None:
        model = read_model(request.path)
        self._outputs = [each.any_name for each in model.outputs]
        found = [(node, rounded) for node in model.get_ordered_ops() if (rounded := _rounded(node))]
        self._rounded = [rounded for _, rounded in found]
        model.add_outputs([node.output(0) for node, _ in found])
        size = model.inputs[0].get_partial_shape()[0]
        self._size = None if size.is_dynamic else int(size.get_length())
        self._file = OpenFile(compiled(request.path, model, request.threads))

    def run(self, batch: NDArray[np.float32] | Pixels) -> Seen:
        """What the file computes of images."""
        size = self._size or len(batch)
        return Seen.joined([self._call(batch[start : start + size]) for start in range(0, len(batch), size)])

    def _call(self, piece: NDArray[np.float32] | Pixels) -> Seen:
        answers = self._file.predict(piece)
        outputs, values = as_outputs(answers[: len(self._outputs)]), answers[len(self._outputs) :]
        own = [SeenTensor(name, each) for name, each in zip(self._outputs, outputs, strict=True)]
        inner = [SeenTensor(each.name, each.values(value)) for each, value in zip(self._rounded, values, strict=True)]
        return Seen(outputs, [*own, *inner])

    def close(self) -> None:
        """Frees the file's memory."""
        self._file.close()


def _rounded(node: openvino.Node) -> _Rounded | None:
    """A node that rounds with one scale; None for others, and for one whose values are an output of the file."""
    if node.get_type_name() != "FakeQuantize":
        return None
    limits = [node.input_value(place).get_node() for place in range(1, 5)]
    if any(each.get_type_name() != "Constant" or each.data.size != 1 for each in limits):
        return None
    if any(each.get_node().get_type_name() == "Result" for each in node.output(0).get_target_inputs()):
        return None
    low, high, low_given, high_given = (each.data.item() for each in limits)
    factor = (high - low) / (high_given - low_given)
    return _Rounded(node.get_friendly_name(), factor, low - low_given * factor)
