"""Writes a model as the zip of a SavedModel folder, always the same bytes, and runs such a zip in TensorFlow."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.errors import ExportError
from edgeopt.exporting import quiet
from edgeopt.plugin import ExportContext
from edgeopt.store import storage_errors
from edgeopt.types import Card, ExportResult, ModelState, TensorInfo
from edgeopt_tensorflow.model import INPUT_NAME, OUTPUT_NAME, tensorflow_model
from edgeopt_tensorflow.runtime import tf

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.types import Logits

CARD_FILE = "assets.extra/edgeopt_card.json"
"""The card within the folder; `assets.extra` is where the format keeps what is not the model's."""

_LEFT_OUT = "fingerprint.pb"  # holds a random number, and nothing that is needed
_OLDEST = (1980, 1, 1, 0, 0, 0)  # the first time that a zip can hold


def export_state(state: ModelState, context: ExportContext) -> ExportResult:
    """Writes the state's model to `context.path`."""
    model = tensorflow_model(state)
    function = model.traced(None, state.preprocessing.image_size)
    return write_saved_model(function, model.variables, state, model.fixed_batch, context)


def write_saved_model(
    function: Any, variables: Any, state: ModelState, batch: int | None, context: ExportContext
) -> ExportResult:
    """Writes a concrete function, NHWC, with the variables that it reads, as the signature `serving_default`."""
    given, returned = _tensors(state, batch)
    card = context.card.with_tensors(given, returned)
    kept = tf.Module()
    kept.kept = list(variables)
    with tempfile.TemporaryDirectory() as name, quiet():
        folder = Path(name)
        tf.saved_model.save(kept, name, signatures={"serving_default": function})
        _zip(folder, context.path, card)
    return ExportResult(given, returned, facts={"signature": "serving_default"})


class SavedModelPredictor:
    """The zip of a SavedModel, opened in TensorFlow."""

    def __init__(self, path: Path) -> None:
        """Unpacks and loads the folder. Raises `ExportError` for a damaged file."""
        self._folder = tempfile.TemporaryDirectory()
        try:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(self._folder.name)
            with quiet():
                self._model = tf.saved_model.load(self._folder.name)
            self._signature = self._model.signatures["serving_default"]
        except Exception as error:  # zipfile and TensorFlow raise many types
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ExportError(f"TensorFlow cannot open {path}: {reason}", hint="export it again") from error
        self._batch = self._signature.structured_input_signature[1][INPUT_NAME].shape[0]

    def predict(self, batch: NDArray[np.float32]) -> Logits:
        """Logits, float32 (n, classes), of normalized float32 pictures (n, 3, height, width)."""
        size = self._batch or max(1, len(batch))
        pieces = [batch[start : start + size] for start in range(0, len(batch), size)]
        return np.concatenate([self._answer(piece, size) for piece in pieces])

    def _answer(self, piece: NDArray[np.float32], size: int) -> Logits:
        missing = size - len(piece) if self._batch else 0
        filled = np.pad(piece, ((0, missing), (0, 0), (0, 0), (0, 0)))
        pictures = tf.constant(np.ascontiguousarray(filled.transpose(0, 2, 3, 1)))
        logits: Logits = self._signature(**{INPUT_NAME: pictures})[OUTPUT_NAME].numpy()
        return logits[: len(piece)]


def _tensors(state: ModelState, batch: int | None) -> tuple[TensorInfo, TensorInfo]:
    size = state.preprocessing.image_size
    any_batch: int | str = batch or "batch"
    return (
        TensorInfo(INPUT_NAME, "float32", (any_batch, size, size, 3), "NHWC"),
        TensorInfo(OUTPUT_NAME, "float32", (any_batch, len(state.classes)), "NC"),
    )


def _zip(folder: Path, path: Path, card: Card) -> None:
    card_file = folder / CARD_FILE
    card_file.parent.mkdir()
    card_file.write_text(card.to_json())
    pending = path.with_name(f".{path.name}")
    with storage_errors(path):
        with zipfile.ZipFile(pending, "w", zipfile.ZIP_STORED) as archive:
            for file in sorted(each for each in folder.rglob("*") if each.is_file() and each.name != _LEFT_OUT):
                entry = zipfile.ZipInfo(file.relative_to(folder).as_posix(), _OLDEST)
                archive.writestr(entry, file.read_bytes())
        pending.replace(path)
