"""Run a `.pte` file in the ExecuTorch runtime: a NumPy batch in, logits out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

# The bindings alone: `executorch.runtime` imports the whole exporter, which takes seconds and 130 MB more.
from executorch.extension.pybindings import _C

from edgeopt.export.predictor import FilePredictor, pixels_or_values
from edgeopt.plugins import TensorInfo, usable_cores
from edgeopt_executorch.native_messages import native_messages

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.plugins import Logits, Pixels

_DTYPES = {0: "uint8", 1: "int8", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 15: "bfloat16"}  # c10::ScalarType


class ExecuTorchPredictor(FilePredictor):
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
        self.threads = threads or usable_cores()
        with native_messages() as said:
            try:
                _C._unsafe_reset_threadpool(self.threads)  # noqa: SLF001 - the bindings' only way
                self._program = _C._load_program(str(path))  # noqa: SLF001 - the bindings' only way
                self._method = self._program.load_method("forward")
            except RuntimeError as error:
                detail = said() or str(error)
                raise ValueError(f"ExecuTorch cannot open {path}: {detail}") from error
        meta = self._method.method_meta()
        self.input_info = pixels_or_values(_tensor_info("input", "NCHW", meta.input_tensor_meta(0)))
        self.output_info = _tensor_info("logits", "NC", meta.output_tensor_meta(0))

    def run(self, piece: NDArray[np.float32] | Pixels) -> Logits:
        logits: Logits = self._method([torch.from_numpy(np.ascontiguousarray(piece))])[0].numpy()
        return logits

    def constant(self, method: str) -> str | None:
        """Return the text of a constant method, for instance the card's; None where the file has none of that name."""
        methods = [self._program.get_method_name(index) for index in range(self._program.num_methods())]
        return str(self._program.load_method(method)([])[0]) if method in methods else None

    def close(self) -> None:
        """Free the file's memory."""
        del self._method, self._program


def _tensor_info(name: str, layout: str, info: _C.TensorInfo) -> TensorInfo:
    dtype = _DTYPES.get(info.dtype(), f"type {info.dtype()}")
    return TensorInfo(name=name, dtype=dtype, shape=tuple(info.sizes()), layout=layout)
