"""Opens `.onnx` files of anybody: a model that answers in ONNX Runtime, for conversions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import onnx
import onnxruntime

from edgeopt.plugins import TASKS, CheckpointError, Form, ModelState, Preprocessing, Problem, first_line
from edgeopt_onnx.session import open_session
from edgeopt_tensorflow.options import ONNX, OnnxReaderOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.plugins import Logits

_CHANNELS = 3
_LARGEST_BATCH = 1024
_FILE = "model.onnx"
_NOTES = "notes.json"
_ONE = "edgeopt converts models of one image input and one output"


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """An ONNX file of one image input and one output, which ONNX Runtime answers.

    `batch` is the only batch that it takes, or None for any.
    """

    path: Path
    layout: Literal["NCHW", "NHWC"]
    batch: int | None
    loader: ClassVar[str] = "edgeopt_tensorflow.onnx_reader:load"

    @property
    def parameter_count(self) -> int:
        """How many numbers the file's constants hold."""
        return sum(int(np.prod(each.dims)) for each in onnx.load(self.path).graph.initializer)

    @property
    def input_name(self) -> str:
        """The input's name in the file."""
        name: str = self._session.get_inputs()[0].name
        return name

    def save(self, folder: Path) -> None:
        """Copies the file, with the ones beside it that hold its large constants."""
        shutil.copy2(self.path, folder / _FILE)
        for name in _external_files(onnx.load(self.path, load_external_data=False)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self.path.parent / name, folder / name)
        (folder / _NOTES).write_text(json.dumps({"layout": self.layout, "batch": self.batch}))

    def logits(self, batch: NDArray[np.float32]) -> Logits:
        """Logits, float32 (n, classes), of normalized float32 images (n, 3, height, width)."""
        size = self.batch or max(1, len(batch))
        pieces = [batch[start : start + size] for start in range(0, len(batch), size)]
        return np.concatenate([self._piece(piece, size) for piece in pieces])

    def _piece(self, piece: NDArray[np.float32], size: int) -> Logits:
        missing = size - len(piece) if self.batch else 0
        filled = np.pad(piece, ((0, missing), (0, 0), (0, 0), (0, 0)))
        images = filled.transpose(0, 2, 3, 1) if self.layout == "NHWC" else filled
        logits: Logits = self._session.run(None, {self.input_name: np.ascontiguousarray(images)})[0]
        return logits[: len(piece)].astype(np.float32, copy=False)

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        return _open(self.path)


def load(folder: Path) -> OnnxModel:
    """Reads what `OnnxModel.save` wrote."""
    return OnnxModel(folder / _FILE, **json.loads((folder / _NOTES).read_text()))


def read(path: Path, options: OnnxReaderOptions) -> ModelState:
    """The file's model. Raises `CheckpointError` for a damaged file, and for one of another shape."""
    try:
        proto = onnx.load(path)
        onnx.checker.check_model(proto)
    except Exception as error:  # protocol buffers, onnx and the system raise many types
        raise CheckpointError(
            f"{path} cannot be read as an ONNX model: {first_line(error)}", hint="export it again"
        ) from error
    constants = {each.name for each in proto.graph.initializer}
    inputs = [each for each in proto.graph.input if each.name not in constants]  # older files list their constants too
    for what, values in (("inputs", inputs), ("outputs", list(proto.graph.output))):
        if len(values) != 1:
            listed = ", ".join(each.name for each in values)
            raise CheckpointError(f"{path}: has {len(values)} {what}: {listed}", hint=_ONE)
    layout, batch, size = _images(inputs[0], path, options.image_size)
    model = OnnxModel(path, layout, batch)
    logits = _answer(model, path, batch or 1, size)
    names = options.classes or tuple(str(index) for index in range(logits.shape[1]))
    if len(names) != logits.shape[1]:
        raise CheckpointError(Problem(f"{path}: has {logits.shape[1]} outputs, and source.classes names {len(names)}"))
    quantized = any(
        node.op_type in ("QuantizeLinear", "QLinearConv", "DynamicQuantizeLinear") for node in proto.graph.node
    )
    return ModelState(
        model,
        Form.PROGRAM,
        TASKS["classification"],
        names,
        Preprocessing(size, size, size, options.mean, options.std),
        precision="int8" if quantized else "float32",
        framework=ONNX,
        batch_range=(batch or 1, batch or _LARGEST_BATCH),
    )


def _images(
    value: onnx.ValueInfoProto, path: Path, wanted: int | None
) -> tuple[Literal["NCHW", "NHWC"], int | None, int]:
    """Layout, fixed batch and edge of the images that an input takes."""
    kind = value.type.tensor_type
    shape: list[int | None] = [dim.dim_value or None for dim in kind.shape.dim]
    written = " x ".join("?" if size is None else str(size) for size in shape)
    if kind.elem_type != onnx.TensorProto.FLOAT or len(shape) != 4 or _CHANNELS not in (shape[1], shape[3]):
        name = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
        raise CheckpointError(f"{path}: its input {value.name} is {name} {written}, not float images", hint=_ONE)
    layout: Literal["NCHW", "NHWC"] = "NCHW" if shape[1] == _CHANNELS else "NHWC"
    height, width = shape[2:] if layout == "NCHW" else shape[1:3]
    if height != width or (height and wanted and height != wanted):
        raise CheckpointError(f"{path}: takes images of {height} x {width} px", hint="edgeopt converts square ones")
    size = height or wanted
    if size is None:
        raise CheckpointError(f"{path}: takes images of any size", hint="choose one, with --set source.image_size=224")
    return layout, shape[0], size


def _answer(model: OnnxModel, path: Path, batch: int, size: int) -> Logits:
    try:
        logits = model.logits(np.zeros((batch, _CHANNELS, size, size), np.float32))
    except CheckpointError:
        raise
    except Exception as error:  # onnxruntime's errors share no base class below Exception
        raise CheckpointError(f"{path}: ONNX Runtime cannot run it: {error}") from error
    if logits.ndim != 2 or len(logits) != batch:
        raise CheckpointError(f"{path}: its output is {logits.shape}, not one value a class", hint=_ONE)
    return logits


def _open(path: Path) -> onnxruntime.InferenceSession:
    try:
        return open_session(path)
    except Exception as error:  # onnxruntime's errors share no base class below Exception
        raise CheckpointError(f"ONNX Runtime cannot open {path}: {first_line(error)}") from error


def _external_files(proto: Any) -> Sequence[str]:
    """Paths, beside the file, of the files that hold large constants."""
    places = {
        entry.value for each in proto.graph.initializer for entry in each.external_data if entry.key == "location"
    }
    return sorted(places)
