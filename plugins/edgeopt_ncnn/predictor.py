"""Run a `.param` file with its `.bin` in ncnn: a NumPy batch in, its outputs out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.export.predictor import FilePredictor
from edgeopt.plugins import TensorInfo
from edgeopt_ncnn.on_device import open_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeopt.plugins import Outputs, Pixels


class NcnnPredictor(FilePredictor):
    """A file opened in ncnn on the processor, which takes one image in a call: ncnn knows no batch."""

    def __init__(self, path: Path, *, threads: int) -> None:
        """Opens a file.

        Raises `ValueError` where it or its `.bin` is missing or damaged, or ncnn cannot load it.
        """
        self._file = open_file(path, threads)
        self.input_info = _info(self._file.card["input"])
        self.output_infos = tuple(map(_info, self._file.outputs))

    def run(self, piece: NDArray[np.float32] | Pixels) -> Outputs:
        outputs: Outputs = self._file.predict(piece)
        return outputs

    def close(self) -> None:
        """Free the file's memory."""
        self._file.close()


def _info(said: dict[str, object]) -> TensorInfo:
    return TensorInfo(**{**said, "shape": tuple(said["shape"])})  # type: ignore[arg-type]  # as the card has it
