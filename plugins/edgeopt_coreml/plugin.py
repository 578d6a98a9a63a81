"""Declares the exporter `coreml`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
    Predictor,
    Problem,
    hookimpl,
    without_conversion,
)
from edgeopt_coreml.options import CoreMlOptions, check


def export(state: ModelState, options: CoreMlOptions, context: ExportContext) -> ExportResult:
    """Writes a zipped `.mlpackage`; see `edgeopt_coreml.exporter`."""
    from edgeopt_coreml.exporter import export_state  # coremltools and torch are heavy

    return export_state(state, options, context)


def open_file(path: Path, _threads: int) -> Predictor:
    """Opens a zipped `.mlpackage` in Core ML, which takes the threads that it wants."""
    from edgeopt_coreml.predictor import CoreMlPredictor  # coremltools is heavy

    with damaged_explained():
        return CoreMlPredictor(path)


def refuses(state: ModelState, _options: CoreMlOptions) -> Iterable[Problem]:
    """What speaks against a network before it is trained; see `edgeopt_coreml.operators`."""
    from edgeopt_coreml.operators import refused  # coremltools and torch are heavy

    return refused(state)


def ask(request: AcceleratorRequest) -> AcceleratorAnswer:
    """What Core ML takes; see `edgeopt_coreml.operators`."""
    from edgeopt_coreml import operators  # coremltools and torch are heavy

    return operators.ask(request)


@hookimpl
def edgeopt_exporters() -> Iterator[ExporterPlugin]:
    """The exporters of this package."""
    yield ExporterPlugin(
        "coreml",
        "A .mlpackage for iPhones and Macs, zipped; int8 where the passes made it.",
        CoreMlOptions,
        export=export,
        open=open_file,
        check=check,
        refuses=refuses,
        baseline=without_conversion,
        runtime="coreml",
        suffix=".mlpackage.zip",
        is_folder=True,
        runtime_modules=("edgeopt_coreml.predictor",),
        accelerators=(Accelerator("coreml", "Apple's Core ML: Neural Engine, GPU and CPU, as it sees fit.", ask),),
        no_int16="has Core ML's integers, which are of 8 bits",
        requires=("coremltools",),
        install="edgeopt[coreml]",
    )
