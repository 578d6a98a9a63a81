"""The ONNX file that TensorRT reads, written and checked without TensorRT."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx

from edgeopt.errors import ExportError, NothingChangedError, Problem
from edgeopt.types import ModelState
from edgeopt_onnx.export import export_onnx
from edgeopt_tensorrt.build_engine import ONNX_FILE
from edgeopt_tensorrt.check import Layer, quantized_layers, require_tensorrt, weighted_layers


@dataclass(frozen=True)
class OnnxFile:
    """A checked file: its bytes, its layers, and those of them that are quantized."""

    content: bytes
    layers: tuple[Layer, ...]
    quantized: tuple[Layer, ...]


def write_onnx(state: ModelState, card_json: str, opset: int) -> OnnxFile:
    """The state's program as an ONNX file for any batch that TensorRT takes.

    Raises `ExportError` naming each node that TensorRT would refuse or compute otherwise, `NothingChangedError` when the
    program is quantized and no layer of the file is.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ONNX_FILE
        try:
            export_onnx(state.program, path, card_json=card_json, opset=opset)
        except ValueError as error:
            raise ExportError(Problem(str(error), "choose another opset", option="opset")) from error
        content = path.read_bytes()
    model = onnx.load_from_string(content)
    require_tensorrt(model)
    file = OnnxFile(content, weighted_layers(model), quantized_layers(model))
    if state.precision != "float32" and not file.quantized:
        raise NothingChangedError(f"the program is {state.precision}, and no layer of the file is")
    return file
