"""Opens a `.tflite` file where edgeopt is not. This module goes to devices as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

_CHANNELS = (1, 3)  # no image is so narrow


class OpenFile:
    """A file that answers in calls as large as it takes.

    Images, float32 (n, channels, height, width), are transposed and quantized as its input wants it, and quantized
    outputs are scaled to what they stand for; a file that takes pixels gets them as they are.
    """

    def __init__(self, path: Path, threads: int) -> None:
        self.interpreter = Interpreter(model_path=str(path), num_threads=threads)
        self.interpreter.allocate_tensors()
        self.inputs = self.interpreter.get_input_details()
        self.outputs = self.interpreter.get_output_details()
        given = self.inputs[0]
        self._given, self._scaled = given["index"], _scaled(given)
        self._returned = [(each["index"], _scaled(each)) for each in self.outputs]
        self._dtype = np.dtype(given["dtype"])
        self._takes_pixels = self._dtype == np.uint8 and self._scaled is None
        self.channels_last = int(given["shape"][-1]) in _CHANNELS

    def predict(self, batch: Any) -> Any:
        """An array for each output."""
        target = self.interpreter.tensor(self._given)()
        values = batch if self._takes_pixels else self._values(batch)
        np.copyto(target, values, casting="unsafe")
        del target, values  # LiteRT refuses to run while somebody holds a view of its memory
        self.interpreter.invoke()
        return tuple(_unscaled(self.interpreter.get_tensor(index), scaled) for index, scaled in self._returned)

    def _values(self, piece: Any) -> Any:
        """Images in the layout and, rounded, in the steps of the file's input."""
        if self._scaled is not None:
            scale, zero_point = self._scaled
            limits = np.iinfo(self._dtype)
            piece = np.rint(piece * np.float32(1.0 / scale))  # as PyTorch quantizes
            piece += zero_point
            np.clip(piece, limits.min, limits.max, out=piece)
        return piece.transpose(0, 2, 3, 1) if self.channels_last else piece

    def close(self) -> None:
        """Free the file's memory."""
        del self.interpreter


def _scaled(details: dict[str, Any]) -> tuple[float, int] | None:
    """Scale and zero point of a tensor with one of each; None where it holds plain values."""
    quantization = details["quantization_parameters"]
    if len(quantization["scales"]) != 1:
        return None
    return float(quantization["scales"][0]), int(quantization["zero_points"][0])


def _unscaled(values: Any, scaled: tuple[float, int] | None) -> Any:
    """Float32 of what stands for real numbers; other integers, such as classes, as they are."""
    if scaled is None:
        return values.astype(np.float32, copy=False) if values.dtype.kind == "f" else values
    scale, zero_point = scaled
    return (values.astype(np.float32) - zero_point) * np.float32(scale)


def open_file(path: Path, threads: int) -> OpenFile:
    """The file, opened in LiteRT on the processor, with XNNPACK."""
    return OpenFile(path, threads)
