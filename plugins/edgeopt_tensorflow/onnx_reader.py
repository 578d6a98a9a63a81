"""Opens `.onnx` files of anybody: a model that answers in ONNX Runtime, for conversions."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import onnx
import onnxruntime

from edgeopt.plugins import (
    TASKS,
    CheckpointError,
    Form,
    ImageSize,
    ModelState,
    Problem,
    chosen_size,
    first_line,
    preprocessing_of_source,
)
from edgeopt_onnx.files import LARGEST_MESSAGE, companion, put_outside, read_model, weight_bytes
from edgeopt_onnx.session import open_session
from edgeopt_tensorflow.onnx_tidy import LIFTED_OPSET, fix_batch, flatten_output, lifted, opset_of, plain
from edgeopt_tensorflow.onnx_two_classes import give_two_logits, gives_one_value, is_linear, without_sigmoid
from edgeopt_tensorflow.options import ONNX, OnnxReaderOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.plugins import Logits, Outputs

_CHANNELS = (3, 1)  # which may be first or last; of a shape with both, colours are meant
_LOGITS_AXES = 2
_TOLERANCE = 1e-4  # of the range of the outputs: kernels add in another order
_LARGEST_BATCH = 1024
_FILE = "model.onnx"
_NOTES = "notes.json"
_ONE = "edgeopt converts models of one image input and one output"


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """An ONNX model of one image input and one output of logits, tidied, which ONNX Runtime answers.

    `name` is that of the file that it comes from; `batch` is the only batch that it takes, or None for any.
    """

    proto: onnx.ModelProto
    name: str
    layout: Literal["NCHW", "NHWC"]
    batch: int | None
    loader: ClassVar[str] = "edgeopt_tensorflow.onnx_reader:load"

    @property
    def parameter_count(self) -> int:
        """How many numbers the file's constants hold."""
        return sum(int(np.prod(each.dims)) for each in self.proto.graph.initializer)

    @property
    def input_name(self) -> str:
        """The input's name in the file."""
        name: str = self.proto.graph.input[0].name
        return name

    def save(self, folder: Path) -> None:
        """Writes the model, with a file beside it for constants that are too large for one."""
        save_model(self.proto, folder / _FILE)
        notes = {"name": self.name, "layout": self.layout, "batch": self.batch}
        (folder / _NOTES).write_text(json.dumps(notes))

    def outputs(self, batch: NDArray[np.float32]) -> Outputs:
        """The logits alone, see `logits`."""
        return (self.logits(batch),)

    def logits(self, batch: NDArray[np.float32]) -> Logits:
        """Logits, float32 (n, classes), of normalized float32 images (n, channels, height, width)."""
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
        with tempfile.TemporaryDirectory() as folder:  # from a file, as one message holds 2 GB at most
            self.save(Path(folder))
            return _open(Path(folder) / _FILE, self.name)


def load(folder: Path) -> OnnxModel:
    """Reads what `OnnxModel.save` wrote."""
    return OnnxModel(read_model(folder / _FILE), **json.loads((folder / _NOTES).read_text()))


def save_model(model: onnx.ModelProto, path: Path) -> None:
    """Writes a model, with its weights beside it where they do not fit into one file."""
    if weight_bytes(model) > LARGEST_MESSAGE:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        put_outside(copy, companion(path).name)
        onnx.external_data_helper.write_external_data_tensors(copy, str(path.parent))
        model = copy
    path.write_bytes(model.SerializeToString(deterministic=True))


def read(path: Path, options: OnnxReaderOptions) -> ModelState:
    """The file's model. Raises `CheckpointError` for a damaged file, and for one of another shape."""
    try:
        proto = plain(read_model(path))
    except CheckpointError:
        raise
    except Exception as error:  # protocol buffers, onnx and the system raise many types
        raise _unreadable(path, error) from error
    inputs, outputs = list(proto.graph.input), list(proto.graph.output)
    for what, values in (("inputs", inputs), ("outputs", outputs)):
        if len(values) != 1:
            listed = ", ".join(each.name for each in values)
            raise CheckpointError(f"{path}: has {len(values)} {what}: {listed}", hint=_ONE)
    layout, batch, shape = _images(inputs[0], path, options.image_size)
    model = _tidied(OnnxModel(proto, path.name, layout, batch), path, shape)
    proto, batch = model.proto, model.batch
    try:
        onnx.checker.check_model(proto)
    except Exception as error:  # protocol buffers and onnx raise many types
        raise _unreadable(path, error) from error
    logits = _answer(model, path, batch or 1, shape)
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
        preprocessing_of_source(shape, options.mean, options.std),
        precision="int8" if quantized else "float32",
        framework=ONNX,
        batch_range=(batch or 1, batch or _LARGEST_BATCH),
    )


def _images(
    value: onnx.ValueInfoProto, path: Path, wanted: ImageSize | None
) -> tuple[Literal["NCHW", "NHWC"], int | None, tuple[int, int, int]]:
    """Layout, fixed batch and (height, width, channels) of the images that an input takes, or is to take."""
    kind = value.type.tensor_type
    shape: list[int | None] = [dim.dim_value or None for dim in kind.shape.dim]  # tidied: -1 is open
    written = " x ".join("?" if size is None else str(size) for size in shape)
    if kind.elem_type != onnx.TensorProto.FLOAT or len(shape) != 4 or not {shape[1], shape[3]} & set(_CHANNELS):
        name = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
        raise CheckpointError(f"{path}: its input {value.name} is {name} {written}, not float images", hint=_ONE)
    channels = next(each for each in _CHANNELS if each in (shape[1], shape[3]))
    layout: Literal["NCHW", "NHWC"] = "NCHW" if shape[1] == channels else "NHWC"
    height, width = shape[2:] if layout == "NCHW" else shape[1:3]
    return layout, shape[0], (*chosen_size((height, width), wanted, str(path)), channels)


def _tidied(given: OnnxModel, path: Path, shape: tuple[int, int, int]) -> OnnxModel:
    """The model in an operator set that converters know, with logits (n, classes), and the batch that it does take."""
    model = replace(given, proto=lifted(given.proto, str(path)))
    height, width, channels = shape
    images = np.random.default_rng(0).normal(size=(8, channels, height, width)).astype(np.float32)
    if model.proto is not given.proto:
        _require_same(given, model, path, images[:1])
    logits = _run(model, path, images[:1])
    if gives_one_value(logits.shape):
        model = replace(model, proto=_two_classes(model, path, images))
    elif logits.ndim > _LOGITS_AXES and logits.size == len(logits) * max(logits.shape[1:]):
        flat = onnx.ModelProto()
        flat.CopyFrom(model.proto)
        flatten_output(flat, max(logits.shape[1:]))
        model = replace(model, proto=flat)
    if model.batch is None and not _takes_two(model, images[:2]):
        single = onnx.ModelProto()
        single.CopyFrom(model.proto)
        fix_batch(single, 1)
        model = replace(model, proto=single, batch=1)
    return model


def _two_classes(model: OnnxModel, path: Path, images: NDArray[np.float32]) -> onnx.ModelProto:
    """The model with the logits of two classes in place of one value: 0, and the log-odds of the second."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    if without_sigmoid(proto) or is_linear(proto):
        give_two_logits(proto, probability=False)
    else:
        values = np.concatenate([_run(model, path, image[None]).reshape(-1) for image in images])
        give_two_logits(proto, probability=bool(((values >= 0) & (values <= 1)).all()))
    return proto


def _takes_two(model: OnnxModel, images: NDArray[np.float32]) -> bool:
    """Whether a model whose batch is open answers two images together as it does one by one.

    A Reshape to (1, ...) inside says otherwise, whatever is written at the input.
    """
    try:
        together = model.logits(images)
    except Exception:
        return False
    alone = np.concatenate([model.logits(images[:1]), model.logits(images[1:])])
    span = range_of(alone)
    return together.shape == alone.shape and bool(np.abs(together - alone).max() / span <= _TOLERANCE)


def _require_same(old: OnnxModel, new: OnnxModel, path: Path, image: NDArray[np.float32]) -> None:
    before, after = _run(old, path, image), _run(new, path, image)
    span = range_of(before)
    if before.shape != after.shape or not np.abs(before - after).max() / span <= _TOLERANCE:
        raise CheckpointError(
            f"{path}: is written in opset {opset_of(old.proto)}, and onnx's version converter changes what it computes",
            hint=f"export it again, with opset {LIFTED_OPSET} or later",
        )


def range_of(logits: Logits) -> float:
    """The range of logits; a tenth of the largest where they are closer together: their rounding is no difference."""
    return max(float(np.ptp(logits)), 0.1 * float(np.abs(logits).max()), 1e-12)


def _run(model: OnnxModel, path: Path, images: NDArray[np.float32]) -> Logits:
    try:
        return model.logits(images)
    except CheckpointError:
        raise
    except Exception as error:  # onnxruntime's errors share no base class below Exception
        raise CheckpointError(
            f"{path}: ONNX Runtime cannot run it: {first_line(error)}",
            hint="try the file in ONNX Runtime alone; it must take one float image and give one output",
        ) from error


def _answer(model: OnnxModel, path: Path, batch: int, shape: tuple[int, int, int]) -> Logits:
    height, width, channels = shape
    logits = _run(model, path, np.zeros((batch, channels, height, width), np.float32))
    if logits.ndim != _LOGITS_AXES or len(logits) != batch:
        raise CheckpointError(f"{path}: its output is {logits.shape}, not one value a class", hint=_ONE)
    return logits


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path} cannot be read as an ONNX model: {first_line(error)}", hint="export it again")


def _open(path: Path, name: str) -> onnxruntime.InferenceSession:
    try:
        return open_session(path)
    except Exception as error:  # onnxruntime's errors share no base class below Exception
        raise CheckpointError(
            f"ONNX Runtime cannot open {name}: {first_line(error)}", hint="export it again, or with another opset"
        ) from error
