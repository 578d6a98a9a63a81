"""The ONNX file that TensorRT reads, written and checked without TensorRT."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import onnx

from edgeopt.export.predictor import input_of, layout_of, outputs_of
from edgeopt.networks.bits import layer_bits
from edgeopt.plugins import ExportError, ModelState, NothingChangedError, OnnxTail, Problem, TensorInfo
from edgeopt_onnx.files import read_model
from edgeopt_onnx.tail import add_tail, outputs_of_tail
from edgeopt_tensorrt.build_engine import ONNX_FILE
from edgeopt_tensorrt.graph_check import GraphLayer, needs_plugin, quantized_layers, require_tensorrt, weighted_layers
from edgeopt_tensorrt.options import Precision

_TOO_LARGE = "the weights are more than 2 GB, and a bundle holds one file of less"


@dataclass(frozen=True)
class OnnxFile:
    """A checked file: its bytes, input and outputs, its layers, and those of them that are quantized. One that needs a
    plugin of TensorRT's own runs in no other runtime.
    """

    content: bytes
    input: TensorInfo
    outputs: tuple[TensorInfo, ...]
    layers: tuple[GraphLayer, ...]
    quantized: tuple[GraphLayer, ...]
    needs_plugin: bool


def write_onnx(
    state: ModelState, card_json: str, opset: int, precision: Precision, tail: OnnxTail | None = None
) -> OnnxFile:
    """The state's program as an ONNX file for any batch that TensorRT takes, with the tail's operators behind it.

    TensorRT keeps the file's types, so "float16" is written into it; input and outputs stay as they are.

    Raises `ExportError` naming each node that TensorRT would refuse or compute otherwise, and `NothingChangedError`
    when the program is quantized and no layer of the file is.
    """
    from edgeopt_onnx.conversion import export_onnx  # imports torch, which a file that is there already does without

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ONNX_FILE
        try:
            export_onnx(
                state.program,
                path,
                card_json=card_json,
                output_names=state.output_names,
                opset=opset,
                target="tensorrt",
                precision=precision,
            )
        except ValueError as error:
            raise ExportError(
                Problem(str(error), "leave `opset` out, or choose a later one", option="opset")
            ) from error
        if len(list(Path(folder).iterdir())) > 1:
            raise ExportError(_TOO_LARGE)
        content = path.read_bytes()
    model = onnx.load_from_string(content)
    if tail is not None:  # only now: ONNX Runtime has opened the network, and knows no operator of TensorRT
        add_tail(model, tail)
        content = _serialized(model)
    in_float = {layer.name for layer in layer_bits(state.program) if layer.weights is None}
    file = _checked(model, content, input_of(state, "batch"), outputs_with(state, tail), in_float)
    if state.precision != "float32" and not file.quantized:
        raise NothingChangedError(f"the program is {state.precision}, and no layer of the file is")
    return file


def outputs_with(state: ModelState, tail: OnnxTail | None) -> tuple[TensorInfo, ...]:
    """What a file of the state's program gives for any batch: the program's outputs, or those of the tail behind it."""
    return outputs_of(state, "batch") if tail is None else outputs_of_tail(tail, "batch")


def read_onnx(state: ModelState) -> OnnxFile:
    """The ONNX file behind a state of the framework "onnx", as it is.

    Raises `ExportError` naming each node that TensorRT would refuse or compute otherwise, or what is wrong with the
    shape of its images.
    """
    with tempfile.TemporaryDirectory() as folder:
        state.foreign.save(Path(folder))
        (path,) = Path(folder).glob("*.onnx")
        model = read_model(path)
    constants = {tensor.name for tensor in model.graph.initializer}
    (given,) = (value for value in model.graph.input if value.name not in constants)
    batch, *image = (size.dim_value or None for size in given.type.tensor_type.shape.dim)
    if batch not in (None, 1) or tuple(image) != state.input_shape:
        shape = " x ".join("?" if size is None else str(size) for size in (batch, *image))
        channels, height, width = state.input_shape
        raise ExportError(
            f"the input {given.name!r} is {shape}; a bundle takes 1 or ? x {channels} x {height} x {width}",
            hint="write the ONNX file again, channels first, with fixed sizes, and for one image or any batch",
        )
    size = batch or "batch"
    return _checked(
        model,
        _serialized(model),
        TensorInfo(given.name, "float32", (size, *state.input_shape), "NCHW"),
        tuple(_output(each, size, len(state.classes)) for each in model.graph.output),
    )


def _output(value: onnx.ValueInfoProto, size: int | str, classes: int) -> TensorInfo:
    """An output of a file as it stands; one whose shape the file does not tell is a classifier's."""
    tensor = value.type.tensor_type
    sizes = tuple(each.dim_value for each in tensor.shape.dim)[1:] or (classes,)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name if tensor.elem_type else "float32"
    shape = (size, *(each or classes for each in sizes))
    return TensorInfo(value.name, dtype, shape, layout_of(len(shape)))


def _checked(
    model: onnx.ModelProto,
    content: bytes,
    given: TensorInfo,
    returned: tuple[TensorInfo, ...],
    in_float: Collection[str] = (),
) -> OnnxFile:
    require_tensorrt(model, in_float)
    return OnnxFile(content, given, returned, weighted_layers(model), quantized_layers(model), needs_plugin(model))


def _serialized(model: onnx.ModelProto) -> bytes:
    try:
        content: bytes = model.SerializeToString(deterministic=True)
    except Exception as error:  # protocol buffers have a type of their own for what does not fit into 2 GB
        raise ExportError(_TOO_LARGE) from error
    return content
