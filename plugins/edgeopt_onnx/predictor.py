"""Run an ONNX file in ONNX Runtime: a NumPy batch in, logits out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

from edgeopt.exporting import FilePredictor
from edgeopt.types import TensorInfo

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.types import Logits

_DTYPES = {"float": "float32", "double": "float64"}  # ONNX's names that NumPy spells differently


class OnnxPredictor(FilePredictor):
    """An ONNX file opened in ONNX Runtime on the processor."""

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        """Open a file.

        Args:
            path: an `.onnx` file of one float32 input and one float32 output.
            threads: threads within one operator; the processors this process may use by default.

        Raises:
            ValueError: ONNX Runtime cannot open the file; the message says why in its own words.

        """
        self.threads = threads or len(os.sched_getaffinity(0))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # failures reach the caller as exceptions
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors share no base class below Exception
            raise ValueError(f"ONNX Runtime cannot open {path}: {error}") from error
        (given,), (returned,) = self._session.get_inputs(), self._session.get_outputs()
        self.input_info = _tensor_info(given, "NCHW")
        self.output_info = _tensor_info(returned, "NC")

    def run(self, piece: NDArray[np.float32]) -> Logits:
        logits: Logits = self._session.run([self.output_info.name], {self.input_info.name: piece})[0]
        return logits

    def metadata(self, key: str) -> str | None:
        """Return a text of the file's metadata, for instance the card's; None where the file has none of that name."""
        text: str | None = self._session.get_modelmeta().custom_metadata_map.get(key)
        return text

    def close(self) -> None:
        """Free the file's memory."""
        del self._session


def _tensor_info(argument: onnxruntime.NodeArg, layout: str) -> TensorInfo:
    dtype = argument.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, int) else "batch" for size in argument.shape)
    return TensorInfo(name=argument.name, dtype=_DTYPES.get(dtype, dtype), shape=shape, layout=layout)
