"""Opens an `.onnx` file where edgeopt is not. This module goes to devices as it is, with `edgeopt_onnx.session`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeopt_onnx.session import open_session


class OpenFile:
    """A file that answers in calls as large as it takes."""

    def __init__(self, path: Path, threads: int) -> None:
        self.session = open_session(path, threads=threads, inter_op_num_threads=1)
        self._given = self.session.get_inputs()[0].name
        self._returned = [each.name for each in self.session.get_outputs()]

    def predict(self, batch: Any) -> Any:
        """An array for each output, for what the file takes, as it is."""
        return tuple(self.session.run(self._returned, {self._given: batch}))

    def close(self) -> None:
        """Free the file's memory."""
        del self.session


def open_file(path: Path, threads: int) -> OpenFile:
    """The file, opened in ONNX Runtime on the processor."""
    return OpenFile(path, threads)
