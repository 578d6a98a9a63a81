"""Run a `.param` file with its `.bin` in ncnn: a NumPy batch in, its outputs out."""

from __future__ import annotations

from pathlib import Path

from edgeopt.export.predictor import OpenFilePredictor
from edgeopt.plugins import TensorInfo
from edgeopt_ncnn.on_device import OpenFile


class NcnnPredictor(OpenFilePredictor):
    """A file opened in ncnn on the processor, which takes one image in a call: ncnn knows no batch."""

    _file: OpenFile

    def __init__(self, path: Path, *, threads: int) -> None:
        """Opens a file.

        Raises `ValueError` where it or its `.bin` is missing or damaged, or ncnn cannot load it.
        """
        self._file = OpenFile(path, threads)
        self.input_info = _info(self._file.card["input"])
        self.output_infos = tuple(map(_info, self._file.outputs))


def _info(said: dict[str, object]) -> TensorInfo:
    return TensorInfo(**{**said, "shape": tuple(said["shape"])})  # type: ignore[arg-type]  # as the card has it
