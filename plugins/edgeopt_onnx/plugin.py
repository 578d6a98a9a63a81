"""Declares the exporter `onnx`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeopt.export.predictor import damaged_explained
from edgeopt.plugins import (
    ExportContext,
    ExporterPlugin,
    ExportResult,
    ModelState,
    OnDevice,
    OperatorTime,
    OperatorTimesRequest,
    Predictor,
    TappedFile,
    TapRequest,
    hookimpl,
)
from edgeopt_onnx.auto.chosen import choose
from edgeopt_onnx.options import NO_INT16, OnnxOptions, check, companion, float_options, for_batch


def export(state: ModelState, options: OnnxOptions, context: ExportContext) -> ExportResult:
    """Writes an `.onnx` file; see `edgeopt_onnx.exporter`."""
    from edgeopt_onnx.exporter import export_state  # onnx and torch are heavy

    return export_state(state, options, context)


def open_file(path: Path, threads: int) -> Predictor:
    """Opens an `.onnx` file in ONNX Runtime."""
    from edgeopt_onnx.predictor import OnnxPredictor  # onnxruntime is heavy

    with damaged_explained():
        return OnnxPredictor(path, threads=threads)


def fingerprint(options: OnnxOptions) -> str:
    """What the costs are that precision "auto" chooses by, "" for any other; raises `UserError` for wrong ones."""
    if options.precision != "auto" or options.target == "tensorrt":
        return ""
    return choose(options.costs, options.target).fingerprint


def tap(request: TapRequest) -> TappedFile:
    """Opens a file so that it shows its inner values; see `edgeopt_onnx.tap`."""
    from edgeopt_onnx.tap import TappedOnnx  # onnx and onnxruntime are heavy

    return TappedOnnx(request)


def operator_times(request: OperatorTimesRequest) -> list[OperatorTime]:
    """What each operator takes; see `edgeopt_onnx.operator_times`."""
    from edgeopt_onnx import operator_times as times  # onnx and onnxruntime are heavy

    return times.operator_times(request)


def companions(path: Path) -> tuple[Path, ...]:
    """The weights, where they are not within."""
    return (companion(path),) if companion(path).is_file() else ()


@hookimpl
def edgeopt_exporters() -> Iterator[ExporterPlugin]:
    """The exporters of this package."""
    yield ExporterPlugin(
        "onnx",
        "An .onnx file; int8 as QuantizeLinear and DequantizeLinear.",
        OnnxOptions,
        export=export,
        open=open_file,
        tap=tap,
        operator_times=operator_times,
        for_batch=for_batch,
        tails="onnx",
        runtime="onnxruntime",
        suffix=".onnx",
        format="onnx",
        baseline=float_options,
        check=check,
        fingerprint=fingerprint,
        runtime_modules=("edgeopt_onnx.predictor",),
        on_device=OnDevice(("edgeopt_onnx.on_device", "edgeopt_onnx.session"), ("onnxruntime",)),
        companions=companions,
        requires=("onnx", "onnx-ir", "onnxscript", "onnxruntime", "networkx"),
        install="edgeopt[onnx]",
        no_int16=NO_INT16,
    )
