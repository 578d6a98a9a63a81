"""Declares the exporter `tflm` and the model `mcu`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from edgeopt.export.predictor import damaged_explained
from edgeopt.plugins import (
    ExportContext,
    ExporterPlugin,
    ExportResult,
    ModelPlugin,
    ModelState,
    Predictor,
    Problem,
    TrainingData,
    hookimpl,
)
from edgeopt_tflm.options import McuOptions, TflmOptions, check


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


def build_model(options: McuOptions, data: TrainingData) -> ModelState:
    """A small network for the classes of `data`."""
    from edgeopt_tflm.networks import build  # torch is heavy

    return build(options, data)


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
        refuses=refuses,
        tells_footprint=True,
        no_int16="",
        runtime_modules=("edgeopt_tflm.predictor",),
        libraries=("edgeopt_tflite",),
        requires=("litert-torch", "ai-edge-litert", "ai-edge-quantizer", "tflite-micro"),
        install="edgeopt[tflm]",
    )


@hookimpl
def edgeopt_models() -> Iterator[ModelPlugin]:
    """The networks of this package."""
    yield ModelPlugin(
        "mcu",
        "Networks of 20 to 300 KB in int8 for microcontrollers, from scratch.",
        McuOptions,
        build=build_model,
        libraries=("edgeopt_tflite",),
        tasks=("classification", "multi-label"),
        requires=("torch",),
        install="edgeopt",
    )
