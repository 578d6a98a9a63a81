"""Run a `.pte` file in the ExecuTorch runtime: a NumPy batch in, logits out."""

import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch

# The bindings alone: `executorch.runtime` imports the whole exporter, which takes seconds and 130 MB more.
from executorch.extension.pybindings import _portable_lib

from edgeopt_executorch.quiet import native_messages

_DTYPES = {0: "uint8", 1: "int8", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 15: "bfloat16"}  # c10::ScalarType


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    """The first number is the largest batch that one call of the runtime takes."""
    scale: float | None = None
    zero_point: int | None = None


class ExecuTorchPredictor:
    """A `.pte` file opened in the ExecuTorch runtime.

    The runtime's thread pool is one for the whole process: the last predictor that was opened sets its size.
    """

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        """Open a file.

        Args:
            path: a `.pte` file with a method `forward` of one float32 input and one float32 output.
            threads: size of the process's thread pool; the processors this process may use by default.

        Raises:
            ValueError: the runtime cannot load the file; the message says why in the runtime's own words.

        """
        self.threads = threads or len(os.sched_getaffinity(0))
        with native_messages() as said:
            try:
                _portable_lib._unsafe_reset_threadpool(self.threads)  # noqa: SLF001 - the bindings' only way
                self._program = _portable_lib._load_program(str(path))  # noqa: SLF001 - the bindings' only way
                self._method = self._program.load_method("forward")
            except RuntimeError as error:
                detail = said() or str(error)
                raise ValueError(f"ExecuTorch cannot open {path}: {detail}") from error
        meta = self._method.method_meta()
        self.input_info = _tensor_info("input", meta.input_tensor_meta(0))
        self.output_info = _tensor_info("logits", meta.output_tensor_meta(0))

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
        largest = self.input_info.shape[0]
        pictures = torch.from_numpy(np.ascontiguousarray(batch))
        logits = [self._method([piece])[0].numpy() for piece in torch.split(pictures, largest)] if len(batch) else []
        return np.concatenate(logits) if logits else np.empty((0, *self.output_info.shape[1:]), np.float32)

    def constant(self, method: str) -> str | None:
        """Return the text of a constant method, for instance the card's; None where the file has none of that name."""
        methods = [self._program.get_method_name(index) for index in range(self._program.num_methods())]
        return str(self._program.load_method(method)([])[0]) if method in methods else None

    def close(self) -> None:
        """Free the file's memory."""
        del self._method, self._program

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _tensor_info(name: str, info: _portable_lib.TensorInfo) -> TensorInfo:
    return TensorInfo(name=name, dtype=_DTYPES.get(info.dtype(), f"type {info.dtype()}"), shape=tuple(info.sizes()))
