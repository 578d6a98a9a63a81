"""Declares the exporter `tflm`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from edgeopt.export.predictor import damaged_explained
from edgeopt.plugins import (
    ExportContext,
    ExporterPlugin,
    ExportResult,
    ModelState,
    Predictor,
    Problem,
    hookimpl,
)
from edgeopt_tflm.options import TflmOptions, check, fingerprint


def export(state: ModelState, options: TflmOptions, context: ExportContext) -> ExportResult:
    """Writes a `.tflite` file for microcontrollers; see `edgeopt_tflm.exporter`."""
    from edgeopt_tflm.exporter import export_state  # litert-torch is heavy

    return export_state(state, options, context)


def refuses(state: ModelState, options: TflmOptions) -> Iterable[Problem]:
    """What microcontrollers cannot run of an untrained network; see `edgeopt_tflm.exporter`."""
    from edgeopt_tflm.exporter import refused  # litert-torch is heavy

    return refused(state, options)


def open_file(path: Path, _threads: int) -> Predictor:
    """Opens a `.tflite` file in TensorFlow Lite Micro, which has one thread."""
    from edgeopt_tflm.predictor import TflmPredictor  # numpy and the interpreter are heavy

    with damaged_explained():
        return TflmPredictor(path)


@hookimpl
def edgeopt_exporters() -> Iterator[ExporterPlugin]:
    """The exporters of this package."""
    yield ExporterPlugin(
        "tflm",
        "An int8 or 16x8 .tflite file for microcontrollers, with C++ around it, opened in TensorFlow Lite Micro.",
        TflmOptions,
        export=export,
        open=open_file,
        runtime="microcontroller",
        suffix=".tflite",
        check=check,
        fingerprint=fingerprint,
        refuses=refuses,
        tells_footprint=True,
        no_int16="",
        runtime_modules=("edgeopt_tflm.predictor",),
        libraries=("edgeopt_tflite",),
        requires=("litert-torch", "ai-edge-litert", "ai-edge-quantizer", "tflite-micro"),
        install="edgeopt[tflm]",
    )
