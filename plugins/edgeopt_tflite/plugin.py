"""Declares the exporter `tflite`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeopt.export.predictor import damaged_explained
from edgeopt.plugins import (
    Accelerator,
    AcceleratorAnswer,
    AcceleratorRequest,
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


def ask_ethos_u(request: AcceleratorRequest) -> AcceleratorAnswer:
    """What an Ethos-U takes; see `edgeopt_tflite.accelerators.ethos_u`."""
    from edgeopt_tflite.accelerators import ethos_u  # ai_edge_litert is heavy

    return ethos_u.ask(request)


def ask_edge_tpu(request: AcceleratorRequest) -> AcceleratorAnswer:
    """What an Edge TPU takes; see `edgeopt_tflite.accelerators.edge_tpu`."""
    from edgeopt_tflite.accelerators import edge_tpu  # ai_edge_litert is heavy

    return edge_tpu.ask(request)


ACCELERATORS = (
    Accelerator(
        "ethos-u",
        "Arm's NPU for microcontrollers.",
        ask_ethos_u,
        requires=("ethos-u-vela",),
        install="edgeopt[ethos-u]",
    ),
    Accelerator("edgetpu", "Google's Coral.", ask_edge_tpu),
)


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
        accelerators=ACCELERATORS,
        no_int16="",
    )
