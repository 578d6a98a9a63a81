"""Run a `.tflite` file in TensorFlow Lite Micro: a NumPy batch in, its outputs out."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.export.predictor import FilePredictor, layout_of
from edgeopt.plugins import TensorInfo
from edgeopt_tflite.graph import Graph
from edgeopt_tflite.integrity import require_whole
from edgeopt_tflm.interpreter import MicroFile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.plugins import Outputs, Pixels


class TflmPredictor(FilePredictor):
    """A `.tflite` file opened in the interpreter for microcontrollers, one thread, reference kernels.

    `file_input` and `output_infos` describe the file's own tensors. Images (n, channels, height, width) are quantized
    and transposed as `model.h` does it on the device.
    """

    def __init__(self, path: Path) -> None:
        """Open a file of one input of images, channels last.

        Raises `ValueError` when the file is damaged, or the interpreter cannot open it.
        """
        require_whole(path)
        content = path.read_bytes()
        try:
            graph = Graph(content)
            infos = [_info(graph, int(each)) for each in (*graph.main.inputs, *graph.main.outputs)]
            self._file = MicroFile(content, graph)
        except (struct.error, IndexError, KeyError, TypeError) as error:  # a table that is there and says nonsense
            raise ValueError(f"{path} is damaged: {error}") from error
        except ValueError as error:
            raise ValueError(f"TensorFlow Lite Micro cannot open {path}: {error}") from error
        if len(graph.main.inputs) != 1 or len(infos[0].shape) != 4:
            raise ValueError(f"{path} takes {len(graph.main.inputs)} inputs, and not one of images")
        self.file_input, self.output_infos = infos[0], tuple(infos[1:])
        batch, height, width, channels = self.file_input.shape
        self.input_info = TensorInfo(self.file_input.name, "float32", (batch, channels, height, width), "NCHW")

    def run(self, piece: NDArray[np.float32] | Pixels) -> Outputs:
        outputs = self._file.run(quantized(piece, self.file_input))
        return tuple(_values(each, info) for each, info in zip(outputs, self.output_infos, strict=True))

    def close(self) -> None:
        """Free the file's memory."""
        del self._file


def quantized(images: NDArray[Any], info: TensorInfo) -> NDArray[Any]:
    """Images, float32 (n, channels, height, width), as an input of a file takes them."""
    if info.scale is not None and info.zero_point is not None:
        limits = np.iinfo(info.dtype)
        images = np.rint(images * np.float32(1.0 / info.scale)) + info.zero_point
        images = np.clip(images, limits.min, limits.max).astype(info.dtype)
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


def _values(given: NDArray[Any], info: TensorInfo) -> NDArray[np.float32]:
    """Float32 of what integers stand for."""
    if info.scale is None or info.zero_point is None:
        return given.astype(np.float32, copy=False)
    return (given.astype(np.float32) - info.zero_point) * np.float32(info.scale)


def _info(graph: Graph, tensor: int) -> TensorInfo:
    shape = graph.shape(tensor)
    scale, zero_point = graph.quantization(tensor) or (None, None)
    is_input = tensor in map(int, graph.main.inputs)
    layout = "NHWC" if is_input else layout_of(len(shape))
    return TensorInfo(graph.name(tensor), graph.dtype(tensor), shape, layout, scale, zero_point)
