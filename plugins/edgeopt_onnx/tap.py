"""An ONNX file that shows its inner values: a copy of it, whose graph has them as further outputs.

ONNX Runtime computes a layer in integers where it finds it between DequantizeLinear and QuantizeLinear. A value between
these two that somebody asks for takes the layer apart; so integers are asked for, and values in float only where no
operator is fused over them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgeopt.plugins import Seen, SeenTensor, TapRequest, as_outputs
from edgeopt_onnx.files import read_model
from edgeopt_onnx.operators import WEIGHTED
from edgeopt_onnx.session import open_session

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.plugins import Pixels

_FUSED_BEHIND = {
    *("QuantizeLinear", "DequantizeLinear", "Relu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh"),
    *("LeakyRelu", "Mul", "MaxPool"),
}
"""Operators that ONNX Runtime may compute together with the one before them, and the one that reads integers."""
_COMPUTING = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "MatMulInteger", "ConvInteger", "Add", "Sub", "Mul", "Relu", "Clip"),
    *("GlobalAveragePool", "AveragePool", "ReduceMean", "Concat", "HardSwish", "HardSigmoid", "Sigmoid", "Softmax"),
    *("LayerNormalization", "BatchNormalization", "MaxPool"),
)


@dataclass(frozen=True, eq=False)
class _Asked:
    """A tensor of the graph; integers with the scale and the zero point that DequantizeLinear has for them."""

    name: str
    scale: NDArray[np.float32] | None = None
    zero_point: NDArray[Any] | None = None

    def values(self, given: NDArray[Any]) -> NDArray[np.float32]:
        """Float32, whatever the file has."""
        if self.scale is None:
            return given.astype(np.float32, copy=False)
        zero_point = 0 if self.zero_point is None else self.zero_point.astype(np.float32)
        values: NDArray[np.float32] = (given.astype(np.float32) - zero_point) * self.scale
        return values


class TappedOnnx:
    """A copy of an ONNX file with its inner values as outputs, opened in ONNX Runtime."""

    how = "a copy of the file with its inner values as further outputs, in ONNX Runtime"

    def __init__(self, request: TapRequest) -> None:
        model = read_model(request.path)
        graph = model.graph
        self._asked = tuple(_asked(graph))
        self._input = graph.input[0].name
        self._outputs = [each.name for each in graph.output]
        graph.output.extend(onnx.ValueInfoProto(name=each.name) for each in self._asked)
        copy = request.folder / "tapped.onnx"
        onnx.save(model, copy, save_as_external_data=model.ByteSize() > 1 << 30, location="tapped.data")
        self._session = open_session(copy, threads=request.threads, inter_op_num_threads=1)
        size = self._session.get_inputs()[0].shape[0]
        self._size = size if isinstance(size, int) else None

    def run(self, batch: NDArray[np.float32] | Pixels) -> Seen:
        """What the file computes of images."""
        pieces = np.array_split(batch, max(1, len(batch) // self._size)) if self._size else [batch]
        return Seen.joined([self._call(piece) for piece in pieces])

    def _call(self, piece: NDArray[Any]) -> Seen:
        names = [*self._outputs, *(each.name for each in self._asked)]
        answers = self._session.run(names, {self._input: piece})
        outputs, values = as_outputs(answers[: len(self._outputs)]), answers[len(self._outputs) :]
        own = [SeenTensor(name, each) for name, each in zip(self._outputs, outputs, strict=True)]
        inner = [SeenTensor(each.name, each.values(value)) for each, value in zip(self._asked, values, strict=True)]
        return Seen(outputs, [*own, *inner])

    def close(self) -> None:
        """Frees the file's memory."""
        del self._session


def _asked(graph: onnx.GraphProto) -> Iterator[_Asked]:
    constants = {each.name: each for each in graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {each.name for each in graph.output}
    of_no_image = {*constants, ""}
    seen: set[str] = set()
    for node in graph.node:
        if of_no_image.issuperset(node.input):
            of_no_image.update(node.output)
        elif node.op_type == "DequantizeLinear":
            numbers = [numpy_helper.to_array(constants[name]) for name in node.input[1:] if name in constants]
            if node.input[0] not in seen and numbers and numbers[0].size == 1:
                seen.add(node.input[0])
                yield _Asked(node.input[0], numbers[0], numbers[1] if len(numbers) > 1 else None)
        elif node.op_type in _COMPUTING and node.output[0] not in outputs:
            reading = readers.get(node.output[0], [])
            fused = (_FUSED_BEHIND | {"Add"}) if node.op_type in WEIGHTED else _FUSED_BEHIND
            if reading and not any(each.op_type in fused for each in reading):
                yield _Asked(node.output[0])
