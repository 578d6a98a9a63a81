"""Opens `.onnx` files of anybody: a model that answers in ONNX Runtime, for conversions.

One output of a value a class is a classifier's; what other outputs mean nobody knows, and they are the task `numbers`.
"""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

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
    did_you_mean,
    first_line,
    preprocessing_of_source,
)
from edgeopt_onnx.files import LARGEST_MESSAGE, put_outside, read_model, weight_bytes
from edgeopt_onnx.options import companion
from edgeopt_onnx.session import open_session
from edgeopt_tensorflow.onnx_tidy import (
    LIFTED_OPSET,
    fix_batch,
    flatten_output,
    graphs_of,
    keep_output,
    lifted,
    opset_of,
    plain,
)
from edgeopt_tensorflow.onnx_two_classes import give_two_logits, gives_one_value, is_linear, without_sigmoid
from edgeopt_tensorflow.options import ONNX, OnnxReaderOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.plugins import Outputs

_CHANNELS = (3, 1)  # which may be first or last; of a shape with both, colours are meant
_LOGITS_AXES = 2
_TOLERANCE = 1e-4  # of the range of the outputs: kernels add in another order
_LARGEST_BATCH = 1024
_FILE = "model.onnx"
_NOTES = "notes.json"
_ONE = "edgeopt converts models of one image input"
_KNOWN = (np.float32, np.int32, np.int64, np.int8, np.uint8, np.bool_)  # of outputs, halves and doubles made singles


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """An ONNX model of one image input, tidied, which ONNX Runtime answers.

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

    @property
    def output_names(self) -> tuple[str, ...]:
        """The outputs' names in the file, in its order."""
        return tuple(each.name for each in self.proto.graph.output)

    def outputs(self, batch: NDArray[np.float32]) -> Outputs:
        """An array for each output, of normalized float32 images (n, channels, height, width); floats are float32."""
        size = self.batch or max(1, len(batch))
        pieces = [batch[start : start + size] for start in range(0, len(batch), size)]
        answers = [self._piece(piece, size) for piece in pieces]
        return tuple(np.concatenate(each) for each in zip(*answers, strict=True))

    def _piece(self, piece: NDArray[np.float32], size: int) -> Outputs:
        missing = size - len(piece) if self.batch else 0
        filled = np.pad(piece, ((0, missing), (0, 0), (0, 0), (0, 0)))
        images = filled.transpose(0, 2, 3, 1) if self.layout == "NHWC" else filled
        answers = self._session.run(None, {self.input_name: np.ascontiguousarray(images)})
        return tuple(_in_single(answer[: len(piece)] if missing else answer) for answer in answers)

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


def _in_single(answer: Any) -> Any:
    """An output with its floats, of whatever precision, as float32. Raises `TypeError` for one that is no array."""
    if not isinstance(answer, np.ndarray):
        raise TypeError(f"one of its outputs is a {type(answer).__name__}, not numbers")
    return answer.astype(np.float32, copy=False) if np.issubdtype(answer.dtype, np.floating) else answer


def read(path: Path, options: OnnxReaderOptions) -> ModelState:
    """The file's model. Raises `CheckpointError` for a damaged file, and for one of another shape."""
    try:
        proto = plain(read_model(path))
    except CheckpointError:
        raise
    except Exception as error:  # protocol buffers, onnx and the system raise many types
        raise _unreadable(path, error) from error
    inputs = list(proto.graph.input)
    if len(inputs) != 1:
        listed = ", ".join(each.name for each in inputs)
        raise CheckpointError(f"{path}: has {len(inputs)} inputs: {listed}", hint=_ONE)
    _keep(proto, path, options.output)
    layout, batch, shape = _images(inputs[0], path, options.image_size)
    model = _tidied(OnnxModel(proto, path.name, layout, batch), path, shape)
    proto, batch = model.proto, model.batch
    try:
        onnx.checker.check_model(proto)
    except Exception as error:  # protocol buffers and onnx raise many types
        raise _unreadable(path, error) from error
    outputs = _answer(model, path, batch or 1, shape)
    classifies = len(outputs) == 1 and outputs[0].ndim == _LOGITS_AXES and outputs[0].dtype == np.float32
    quantized = any(
        node.op_type in ("QuantizeLinear", "QLinearConv", "DynamicQuantizeLinear") for node in proto.graph.node
    )
    state = ModelState(
        model,
        Form.PROGRAM,
        TASKS["classification" if classifies else "numbers"],
        (),
        preprocessing_of_source(shape, options.mean, options.std),
        precision="int8" if quantized else "float32",
        framework=ONNX,
        batch_range=(batch or 1, batch or _LARGEST_BATCH),
    )
    if not classifies:
        if options.classes:
            shapes = ", ".join(f"{name} {each.shape}" for name, each in zip(model.output_names, outputs, strict=True))
            hint = "leave source.classes out, or name the output of logits with source.output"
            raise CheckpointError(Problem(f"{path}: source.classes are of logits, and it returns {shapes}", hint))
        return replace(state, output_names=model.output_names)
    classes = outputs[0].shape[1]
    names = options.classes or tuple(str(index) for index in range(classes))
    if len(names) != classes:
        raise CheckpointError(Problem(f"{path}: has {classes} outputs, and source.classes names {len(names)}"))
    return replace(state, classes=names)


def _keep(proto: onnx.ModelProto, path: Path, wanted: str | None) -> None:
    """Leaves the output that is `wanted` alone, in place, and what leads to it; all of them where it is None.

    Raises `CheckpointError` where there is none of that name, and where boxes are sorted out on the way.
    """
    names = [each.name for each in proto.graph.output]
    if wanted is not None:
        if wanted not in names:
            hint = did_you_mean(wanted, names) or f"it has {', '.join(names)}"
            raise CheckpointError(Problem(f"{path}: has no output {wanted!r}, as source.output says", hint))
        keep_output(proto, wanted)
    if any(node.op_type == "NonMaxSuppression" for graph in graphs_of(proto.graph) for node in graph.node):
        message = f"{path}: removes overlapping boxes itself (NMS), and gives as many as it finds"
        hint = "export the network up to its raw heads; or keep one that stands before it with source.output"
        raise CheckpointError(Problem(message, hint))


def _images(
    value: onnx.ValueInfoProto, path: Path, wanted: ImageSize | None
) -> tuple[Literal["NCHW", "NHWC"], int | None, tuple[int, int, int]]:
    """Layout, fixed batch and (height, width, channels) of the images that an input takes, or is to take."""
    kind = value.type.tensor_type
    shape: list[int | None] = [dim.dim_value or None for dim in kind.shape.dim]  # tidied: -1 is open
    written = " x ".join("?" if size is None else str(size) for size in shape)
    if kind.elem_type != onnx.TensorProto.FLOAT or len(shape) != 4 or not {shape[1], shape[3]} & set(_CHANNELS):
        known = onnx.TensorProto.DataType.items()
        name = next((each.lower() for each, number in known if number == kind.elem_type), f"type {kind.elem_type}")
        raise CheckpointError(f"{path}: its input {value.name} is {name} {written}, not float images", hint=_ONE)
    channels = next(each for each in _CHANNELS if each in (shape[1], shape[3]))
    layout: Literal["NCHW", "NHWC"] = "NCHW" if shape[1] == channels else "NHWC"
    height, width = shape[2:] if layout == "NCHW" else shape[1:3]
    if shape[0] is not None and shape[0] > _LARGEST_BATCH:
        raise CheckpointError(f"{path}: takes {shape[0]} images at once", hint="export it with an open batch")
    return layout, shape[0], (*chosen_size((height, width), wanted, str(path)), channels)


def _tidied(given: OnnxModel, path: Path, shape: tuple[int, int, int]) -> OnnxModel:
    """The model in an operator set that converters know, a classifier's with logits (n, classes), and the batch that it
    does take.
    """
    model = replace(given, proto=lifted(given.proto, str(path)))
    height, width, channels = shape
    images = np.random.default_rng(0).normal(size=(8, channels, height, width)).astype(np.float32)
    if model.proto is not given.proto:
        _require_same(given, model, path, images[:1])
    (logits, *others) = _run(model, path, images[:1])
    if others:
        pass  # whatever it is, it is no classifier
    elif gives_one_value(logits.shape):
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
        values = np.concatenate([_run(model, path, image[None])[0].reshape(-1) for image in images])
        give_two_logits(proto, probability=bool(((values >= 0) & (values <= 1)).all()))
    return proto


def _takes_two(model: OnnxModel, images: NDArray[np.float32]) -> bool:
    """Whether a model whose batch is open answers two images together as it does one by one.

    A Reshape to (1, ...) inside says otherwise, whatever is written at the input.
    """
    try:
        together = model.outputs(images)
    except Exception:
        return False
    alone = [model.outputs(image[None]) for image in images]
    joined = [np.concatenate(each) for each in zip(*alone, strict=True)]
    return all(apart(one, other) <= _TOLERANCE for one, other in zip(together, joined, strict=True))


def _require_same(old: OnnxModel, new: OnnxModel, path: Path, image: NDArray[np.float32]) -> None:
    pairs = zip(_run(old, path, image), _run(new, path, image), strict=True)
    if not all(apart(before, after) <= _TOLERANCE for before, after in pairs):
        raise CheckpointError(
            f"{path}: is written in opset {opset_of(old.proto)}, and onnx's version converter changes what it computes",
            hint=f"export it again, with opset {LIFTED_OPSET} or later",
        )


def range_of(output: NDArray[Any]) -> float:
    """The range of an output; a tenth of the largest where its values are closer together: their rounding is no
    difference.
    """
    values = output.astype(np.float64)
    return max(float(np.ptp(values)), 0.1 * float(np.abs(values).max()), 1e-12)


def apart(output: NDArray[Any], other: NDArray[Any]) -> float:
    """How far two outputs are from each other: the largest difference of floats, as a share of the first one's range,
    and the share of other values that differ. Infinite where they have no number or another shape.
    """
    if output.shape != other.shape:
        return math.inf
    if output.dtype != np.float32:
        return float((output != other).mean())
    share = float(np.abs(output.astype(np.float64) - other).max()) / range_of(output)
    return share if math.isfinite(share) else math.inf


def _run(model: OnnxModel, path: Path, images: NDArray[np.float32]) -> Outputs:
    try:
        return model.outputs(images)
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # onnxruntime's errors share no base class below Exception
        raise CheckpointError(
            f"{path}: ONNX Runtime cannot run it: {first_line(error)}",
            hint="try the file in ONNX Runtime alone; it must take float images",
        ) from error


def _answer(model: OnnxModel, path: Path, batch: int, shape: tuple[int, int, int]) -> Outputs:
    """What it answers for a batch. Raises `CheckpointError` for outputs that have no row of numbers for each image."""
    height, width, channels = shape
    noise = np.random.default_rng(1).normal(size=(2, batch, channels, height, width)).astype(np.float32)
    answers, others = _run(model, path, noise[0]), _run(model, path, noise[1])
    for name, answer, other in zip(model.output_names, answers, others, strict=True):
        if answer.dtype not in _KNOWN or not answer.ndim or len(answer) != batch:
            message = f"{path}: its output {name!r} is {answer.dtype} {answer.shape}, not numbers with a row an image"
            raise CheckpointError(Problem(message, _other_outputs(model, name)))
        if answer.shape != other.shape:
            message = f"{path}: its output {name!r} gives any number of values an image"
            raise CheckpointError(Problem(message, _other_outputs(model, name)))
    return answers


def _other_outputs(model: OnnxModel, name: str) -> str:
    others = [other for other in model.output_names if other != name]
    wanted = "the first axis of an output must be that of the images, and the others must not change"
    return f"keep another one with source.output: {', '.join(others)}" if others else wanted


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path} cannot be read as an ONNX model: {first_line(error)}", hint="export it again")


def _open(path: Path, name: str) -> onnxruntime.InferenceSession:
    try:
        return open_session(path)
    except Exception as error:  # onnxruntime's errors share no base class below Exception
        raise CheckpointError(
            f"ONNX Runtime cannot open {name}: {first_line(error)}", hint="export it again, or with another opset"
        ) from error
