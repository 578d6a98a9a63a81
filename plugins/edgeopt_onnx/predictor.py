"""Run an ONNX file in ONNX Runtime: a NumPy batch in, logits out."""

import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import onnxruntime

_DTYPES = {"float": "float32", "double": "float64"}  # ONNX's names that NumPy spells differently


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a file."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    """None where any size is taken."""
    scale: float | None = None
    zero_point: int | None = None


class OnnxPredictor:
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
        # Idle threads sleep instead of spinning: they would take the processors from whatever else is measured.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # failures reach the caller as exceptions
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors share no base class below Exception
            raise ValueError(f"ONNX Runtime cannot open {path}: {error}") from error
        (given,), (returned,) = self._session.get_inputs(), self._session.get_outputs()
        self.input_info = _tensor_info(given)
        self.output_info = _tensor_info(returned)
        self._logits_shape = tuple(size or 0 for size in self.output_info.shape[1:])

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Return the logits of a batch of any size, run in pieces that the file takes.

        Args:
            batch: float32 [N, C, H, W].

        Returns:
            float32 [N, classes].

        Raises:
            ValueError: the batch has another type or picture shape than the file's input.

        """
        if batch.dtype.name != self.input_info.dtype or batch.shape[1:] != self.input_info.shape[1:]:
            raise ValueError(
                f"the file takes {self.input_info.dtype} {self.input_info.shape[1:]} for each picture, "
                f"not {batch.dtype.name} {batch.shape[1:]}"
            )
        size = self.input_info.shape[0] or max(len(batch), 1)
        pieces = [batch[start : start + size] for start in range(0, len(batch), size)]
        logits = [self._session.run([self.output_info.name], {self.input_info.name: piece})[0] for piece in pieces]
        return np.concatenate(logits) if logits else np.empty((0, *self._logits_shape), np.float32)

    def metadata(self, key: str) -> str | None:
        """Return a text of the file's metadata, for instance the card's; None where the file has none of that name."""
        text: str | None = self._session.get_modelmeta().custom_metadata_map.get(key)
        return text

    def close(self) -> None:
        """Free the file's memory."""
        del self._session

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _tensor_info(argument: onnxruntime.NodeArg) -> TensorInfo:
    dtype = argument.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, int) else None for size in argument.shape)
    return TensorInfo(name=argument.name, dtype=_DTYPES.get(dtype, dtype), shape=shape)
