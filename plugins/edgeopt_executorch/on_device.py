"""Opens a `.pte` file where edgeopt is not. This module goes to devices as it is, with `native_messages`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

# The bindings alone: `executorch.runtime` imports the whole exporter, which takes seconds and 130 MB more.
from executorch.extension.pybindings import _C

from edgeopt_executorch.native_messages import native_messages


class OpenFile:
    """A file that answers in calls as large as it takes.

    The runtime's thread pool is one for the whole process: the last file that was opened sets its size.
    """

    def __init__(self, path: Path, threads: int) -> None:
        with native_messages() as said:
            try:
                _C._unsafe_reset_threadpool(threads)  # noqa: SLF001 - the bindings' only way
                self.program = _C._load_program(str(path))  # noqa: SLF001 - the bindings' only way
                self.method = self.program.load_method("forward")
            except RuntimeError as error:
                detail = said() or str(error)
                raise ValueError(f"ExecuTorch cannot open {path}: {detail}") from error

    def predict(self, batch: Any) -> Any:
        """An array for each output, for what the file takes, as it is."""
        return tuple(each.numpy() for each in self.method([torch.from_numpy(np.ascontiguousarray(batch))]))

    def close(self) -> None:
        """Free the file's memory."""
        del self.method, self.program


def open_file(path: Path, threads: int) -> OpenFile:
    """The file, opened in the ExecuTorch runtime.

    Raises `ValueError` where the runtime cannot load it; the message says why in the runtime's own words.
    """
    return OpenFile(path, threads)
