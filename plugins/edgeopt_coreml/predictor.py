"""Run a zipped `.mlpackage` in Core ML, on macOS: a NumPy batch in, its outputs out."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.export.predictor import FilePredictor, quiet
from edgeopt.plugins import ExportError
from edgeopt_coreml.package import tensors_of, unpack
from edgeopt_coreml.tools import coremltools, not_run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.plugins import Outputs, Pixels


class CoreMlPredictor(FilePredictor):
    """A file opened in Core ML, on whichever of its processors it chooses; one image in a call."""

    def __init__(self, path: Path) -> None:
        """Opens a file.

        Raises `ValueError` where it is damaged or Core ML does not open it, and `ExportError` where there is no Core
        ML, or one that is too old.
        """
        self._folder = tempfile.TemporaryDirectory(suffix=".mlpackage")
        spec = unpack(path, Path(self._folder.name))
        if reason := not_run(spec.specificationVersion):
            raise ExportError(f"{path} cannot be opened: {reason}", hint="copy it to a Mac, or into an app")
        self.input_info, self.output_infos = tensors_of(spec)
        self._model = load(Path(self._folder.name))

    def run(self, piece: NDArray[np.float32] | Pixels) -> Outputs:
        given: Any = _image(piece) if self.input_info.holds == "pixels" else piece
        answers = self._model.predict({self.input_info.name: given})
        return tuple(np.asarray(answers[info.name]) for info in self.output_infos)

    def close(self) -> None:
        """Free the file's memory."""
        del self._model
        self._folder.cleanup()


def load(package: Path) -> Any:
    """What answers for a package: Core ML's own model, in the hands of coremltools.

    Raises `ValueError` where Core ML does not open it.
    """
    with quiet():
        model = coremltools.models.MLModel(str(package), compute_units=coremltools.ComputeUnit.ALL)
    if model.__proxy__ is None:  # it keeps the reason for whoever asks for an answer
        raise ValueError(f"Core ML cannot open {package}: {model._framework_error}")  # noqa: SLF001
    return model


def _image(piece: Any) -> Any:
    """One image of uint8 (1, height, width, channels), as Core ML takes it."""
    from PIL import Image

    pixels = piece[0]
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
