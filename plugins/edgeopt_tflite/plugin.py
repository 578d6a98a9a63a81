"""Declares the exporter `tflite`."""

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
    Predictor,
    TappedFile,
    TapRequest,
    hookimpl,
)
from edgeopt_tflite.options import TfliteOptions, baseline, check


def export(state: ModelState, options: TfliteOptions, context: ExportContext) -> ExportResult:
    """Writes a `.tflite` file; see `edgeopt_tflite.exporter`."""
    from edgeopt_tflite.exporter import export_state  # litert-torch is heavy

    return export_state(state, options, context)


def open_file(path: Path, threads: int) -> Predictor:
    """Opens a `.tflite` file in LiteRT."""
    from edgeopt_tflite.predictor import TflitePredictor  # LiteRT is heavy

    with damaged_explained():
        return TflitePredictor(path, threads=threads)


def tap(request: TapRequest) -> TappedFile:
    """Opens a file so that it shows its inner values; see `edgeopt_tflite.tap`."""
    from edgeopt_tflite.tap import TappedTflite  # ai_edge_litert is heavy

    return TappedTflite(request)


@hookimpl
def edgeopt_exporters() -> Iterator[ExporterPlugin]:
    """The exporters of this package."""
    yield ExporterPlugin(
        "tflite",
        "A .tflite file for phones and boards, its operators delegated to XNNPACK.",
        TfliteOptions,
        export=export,
        open=open_file,
        tap=tap,
        runtime="litert",
        suffix=".tflite",
        runtime_modules=("edgeopt_tflite.predictor",),
        on_device=OnDevice(("edgeopt_tflite.on_device",), ("ai-edge-litert",)),
        requires=("litert-torch", "ai-edge-litert", "ai-edge-quantizer"),
        install="edgeopt[tflite]",
        framework="torch",
        format="tflite",
        baseline=baseline,
        tails="tflite",
        check=check,
    )
