"""Declares the exporter `onnx`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from edgeopt.errors import ExportError
from edgeopt.hookspecs import hookimpl
from edgeopt.plugin import ExportContext, ExporterPlugin, Options
from edgeopt.types import ExportResult, ModelState, Predictor


class OnnxOptions(Options):
    """An `.onnx` file."""

    opset: int = Field(20, ge=18, le=23, description="version of the ONNX operator set")
    dynamic_batch: bool = Field(True, description="take batches of any size, not single pictures alone")


def export(state: ModelState, options: OnnxOptions, context: ExportContext) -> ExportResult:
    """Writes an `.onnx` file; see `edgeopt_onnx.state`."""
    from edgeopt_onnx.state import export_state  # onnx and torch are heavy

    return export_state(state, options.opset, context, dynamic_batch=options.dynamic_batch)


def open_file(path: Path, threads: int) -> Predictor:
    """Opens an `.onnx` file in ONNX Runtime."""
    from edgeopt_onnx.predictor import OnnxPredictor  # onnxruntime is heavy

    try:
        return OnnxPredictor(path, threads=threads)
    except ValueError as error:  # damaged, or not a file of this runtime
        raise ExportError(str(error), hint="export it again") from error


@hookimpl
def edgeopt_exporters() -> Iterator[ExporterPlugin]:
    """The exporters of this package."""
    yield ExporterPlugin(
        "onnx",
        "An .onnx file; int8 as QuantizeLinear and DequantizeLinear.",
        OnnxOptions,
        export=export,
        open=open_file,
        runtime="onnxruntime",
        suffix=".onnx",
        runtime_modules=("edgeopt_onnx.predictor",),
        requires=("onnx", "onnxscript", "onnxruntime"),
        install="edgeopt[onnx]",
    )
