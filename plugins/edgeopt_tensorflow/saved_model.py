"""Writes a model as the zip of a SavedModel folder, always the same bytes, and runs such a zip in TensorFlow."""

from __future__ import annotations

import re
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.export.predictor import FilePredictor, layout_of, quiet
from edgeopt.files import storage_errors
from edgeopt.plugins import Card, ExportContext, ExportError, ExportResult, ModelState, TensorInfo, first_line
from edgeopt_tensorflow.model import INPUT_NAME, OUTPUT_NAME
from edgeopt_tensorflow.runtime import tf

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.plugins import Outputs, Pixels

CARD_FILE = "assets.extra/edgeopt_card.json"
"""The card within the folder; `assets.extra` is where the format keeps what is not the model's."""

_LEFT_OUT = "fingerprint.pb"  # holds a random number, and nothing that a reader needs
_NUMBERED = re.compile(r"(.+_)(\d+)")
_ARGUMENT = "_user_specified_name"  # a note for error messages; of a variable, its number in this process
_OLDEST = (1980, 1, 1, 0, 0, 0)  # the first time that a zip can hold


def write_saved_model(function: Any, state: ModelState, batch: int | None, context: ExportContext) -> ExportResult:
    """Writes a concrete function, NHWC, with the variables that it reads, as the signature `serving_default`."""
    given, returned = _tensors(function, state, batch)
    card = context.card.with_tensors(given, returned)
    kept = tf.Module()
    # TensorFlow's own list of them is in another order in each process
    places = {id(handle): place for place, handle in enumerate(function.captured_inputs)}
    kept.kept = sorted(function.variables, key=lambda each: (places.get(id(each.handle), len(places)), each.name))
    with tempfile.TemporaryDirectory() as name, quiet():
        folder = Path(name)
        tf.saved_model.save(kept, name, signatures={"serving_default": function})
        _renumber(folder / "saved_model.pb")
        _zip(folder, context.path, card)
    return ExportResult(given, returned, facts={"signature": "serving_default"})


class SavedModelPredictor(FilePredictor):
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
            raise ExportError(f"TensorFlow cannot open {path}: {first_line(error)}", hint="export it again") from error
        batch, height, width, channels = self._signature.structured_input_signature[1][INPUT_NAME].shape
        self._batch = batch
        self.input_info = TensorInfo(INPUT_NAME, "float32", (batch or "batch", channels, height, width), "NCHW")
        outputs = self._signature.structured_outputs
        self._keys = sorted(outputs)
        self.output_infos = tuple(_info(key, outputs[key]) for key in self._keys)

    def run(self, piece: NDArray[np.float32] | Pixels) -> Outputs:
        missing = max(0, (self._batch or 0) - len(piece))
        filled = np.pad(piece, ((0, missing), (0, 0), (0, 0), (0, 0)))
        images = tf.constant(np.ascontiguousarray(filled.transpose(0, 2, 3, 1)))
        answers = self._signature(**{INPUT_NAME: images})
        return tuple(answers[key].numpy()[: len(piece)] for key in self._keys)

    def close(self) -> None:
        """Frees the file's memory."""
        del self._model, self._signature
        self._folder.cleanup()


def _tensors(function: Any, state: ModelState, batch: int | None) -> tuple[TensorInfo, tuple[TensorInfo, ...]]:
    any_batch: int | str = batch or "batch"
    given = TensorInfo(INPUT_NAME, "float32", (any_batch, *state.preprocessing.shape), "NHWC")
    if state.classes:
        return given, (TensorInfo(OUTPUT_NAME, "float32", (any_batch, len(state.classes)), "NC"),)
    outputs = function.structured_outputs
    infos = [_info(key, outputs[key]) for key in sorted(outputs)]
    return given, tuple(
        replace(info, name=name, shape=(any_batch, *info.shape[1:]))
        for name, info in zip(state.output_names, infos, strict=True)
    )


def _info(key: str, output: Any) -> TensorInfo:
    shape = tuple(output.shape)
    return TensorInfo(key, output.dtype.name, shape, layout_of(len(shape)))


def _renumber(file: Path) -> None:
    """Numbers the functions of a SavedModel from 0 on: TensorFlow goes on counting through a whole process."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    proto = SavedModel()
    proto.ParseFromString(file.read_bytes())
    for meta in proto.meta_graphs:
        library, saved = meta.graph_def.library, meta.object_graph_def
        functions = sorted(library.function, key=lambda each: _number(each.signature.name))
        names = {}
        for number, function in enumerate(functions):
            found = _NUMBERED.fullmatch(function.signature.name)
            names[function.signature.name] = f"{found[1]}{number}" if found else function.signature.name
        for nodes in (meta.graph_def.node, *(function.node_def for function in functions)):
            _rename_calls(nodes, names)
        for function in functions:
            function.signature.name = names[function.signature.name]
            for argument in function.arg_attr.values():
                argument.attr.pop(_ARGUMENT, None)
        del library.function[:]
        library.function.extend(functions)
        for old, new in names.items():
            if new != old and old in saved.concrete_functions:
                saved.concrete_functions[new].CopyFrom(saved.concrete_functions[old])
                del saved.concrete_functions[old]
        for node in saved.nodes:
            match node.WhichOneof("kind"):
                case "function":
                    called = node.function.concrete_functions
                    called[:] = [names.get(name, name) for name in called]
                case "bare_concrete_function":
                    bare = node.bare_concrete_function
                    bare.concrete_function_name = names.get(bare.concrete_function_name, bare.concrete_function_name)
    file.write_bytes(proto.SerializeToString(deterministic=True))


def _number(name: str) -> tuple[int, str]:
    """Sorts functions in the order in which they were traced."""
    found = _NUMBERED.fullmatch(name)
    return (int(found[2]) if found else -1, name)


def _rename_calls(nodes: Any, names: dict[str, str]) -> None:
    for node in nodes:
        node.attr.pop(_ARGUMENT, None)
        node.op = names.get(node.op, node.op)
        for value in node.attr.values():
            called = [value.func] if value.HasField("func") else list(value.list.func)
            for each in called:
                each.name = names.get(each.name, each.name)


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
