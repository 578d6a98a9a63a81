"""Run a `.tflite` file in LiteRT: a NumPy batch in, its outputs out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.export.predictor import OpenFilePredictor, layout_of, pixels_or_values
from edgeopt.plugins import TensorInfo, usable_cores
from edgeopt_tflite.integrity import require_whole
from edgeopt_tflite.on_device import OpenFile


class TflitePredictor(OpenFilePredictor):
    """A `.tflite` file opened in LiteRT on the processor, with XNNPACK.

    `file_input` and `output_infos` describe the file's own tensors. Normalized images (n, channels, height, width) are
    transposed and quantized as these want it; a file that takes pixels gets them as they are.
    """

    _file: OpenFile

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        """Open a file.

        Args:
            path: a `.tflite` file of one input.
            threads: threads within one operator; the processors this process may use by default.

        Raises:
            ValueError: the file is damaged, or LiteRT cannot open it.

        """
        self.threads = threads or usable_cores()
        require_whole(path)
        try:
            self._file = OpenFile(path, self.threads)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"LiteRT cannot open {path}: {error}") from error
        inputs = self._file.inputs
        if len(inputs) != 1:
            raise ValueError(f"{path} has {len(inputs)} inputs, not one")
        self.file_input = pixels_or_values(_tensor_info(inputs[0], "NHWC" if self._file.channels_last else "NCHW"))
        self.input_info = self.file_input if self.file_input.holds == "pixels" else _as_fed(self.file_input)
        self.output_infos = tuple(_tensor_info(each, layout_of(len(each["shape"]))) for each in self._file.outputs)


def _tensor_info(details: dict[str, Any], layout: str) -> TensorInfo:
    quantization = details["quantization_parameters"]
    one = len(quantization["scales"]) == 1
    return TensorInfo(
        name=details["name"],
        dtype=np.dtype(details["dtype"]).name,
        shape=tuple(map(int, details["shape"])),
        layout=layout,
        scale=float(quantization["scales"][0]) if one else None,
        zero_point=int(quantization["zero_points"][0]) if one else None,
    )


def _as_fed(info: TensorInfo) -> TensorInfo:
    """The input as `predict` takes it: float32, channels first."""
    batch, *sizes = info.shape
    shape = (batch, sizes[2], sizes[0], sizes[1]) if info.layout == "NHWC" else info.shape
    return TensorInfo(info.name, "float32", shape, "NCHW")
