"""Declares the exporter `openvino`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeopt.export.companions import companions
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
    without_conversion,
)
from edgeopt_openvino.options import OpenVinoOptions, check, for_batch


def export(state: ModelState, options: OpenVinoOptions, context: ExportContext) -> ExportResult:
    """Writes an `.xml` with its `.bin`; see `edgeopt_openvino.exporter`."""
    from edgeopt_openvino.exporter import export_state  # onnx, torch and openvino are heavy

    return export_state(state, options, context)


def open_file(path: Path, threads: int) -> Predictor:
    """Opens an `.xml` with its `.bin` in OpenVINO, on the processor."""
    from edgeopt_openvino.predictor import OpenVinoPredictor  # openvino is heavy

    with damaged_explained():
        return OpenVinoPredictor(path, threads=threads)


def tap(request: TapRequest) -> TappedFile:
    """Opens a file so that it shows its inner values; see `edgeopt_openvino.tap`."""
    from edgeopt_openvino.tap import TappedOpenVino  # openvino is heavy

    return TappedOpenVino(request)


def operator_times(request: OperatorTimesRequest) -> list[OperatorTime]:
    """What each operator takes; see `edgeopt_openvino.operators`."""
    from edgeopt_openvino import operators  # openvino is heavy

    return operators.operator_times(request)


@hookimpl
def edgeopt_exporters() -> Iterator[ExporterPlugin]:
    """The exporters of this package."""
    yield ExporterPlugin(
        "openvino",
        "An .xml with its .bin for OpenVINO; int8 where the passes made it.",
        OpenVinoOptions,
        export=export,
        open=open_file,
        tap=tap,
        operator_times=operator_times,
        for_batch=for_batch,
        tails="onnx",
        runtime="openvino",
        suffix=".xml",
        format="openvino",
        baseline=without_conversion,
        check=check,
        runtime_modules=("edgeopt_openvino.predictor",),
        on_device=OnDevice(("edgeopt_openvino.on_device", "edgeopt.export.companions"), ("openvino",)),
        companions=companions,
        libraries=("edgeopt_onnx",),
        requires=("openvino", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "networkx"),
        install="edgeopt[openvino]",
        no_int16="would leave the rounding out and compute in float: OpenVINO's processor has integers of 8 bits alone",
    )
