"""Declares the quantizer `ncnn` and the exporter `ncnn`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.export.predictor import damaged_explained
from edgeopt.plugins import (
    ExportContext,
    ExporterPlugin,
    ExportResult,
    ModelState,
    OnDevice,
    Predictor,
    QuantizerPlugin,
    Scheme,
    hookimpl,
)
from edgeopt_ncnn.options import NcnnOptions, NcnnQuantizerOptions, baseline, check

if TYPE_CHECKING:
    from torchao.quantization.pt2e.quantizer import Quantizer

INSTALL = "edgeopt[ncnn]"


def build_quantizer(options: NcnnQuantizerOptions, qat: bool) -> Quantizer:
    """The numerics of ncnn; see `edgeopt_ncnn.quantizer`."""
    from edgeopt_ncnn.quantizer import NcnnQuantizer  # torch is heavy

    return NcnnQuantizer(qat=qat, observer=options.observer, all_layers=options.all_layers)


def export(state: ModelState, options: NcnnOptions, context: ExportContext) -> ExportResult:
    """Writes a `.param` and its `.bin`; see `edgeopt_ncnn.exporter`."""
    from edgeopt_ncnn.exporter import export_state  # torch is heavy

    return export_state(state, options, context)


def open_file(path: Path, threads: int) -> Predictor:
    """Opens a `.param` and its `.bin` in ncnn."""
    from edgeopt_ncnn.predictor import NcnnPredictor  # ncnn is native code

    with damaged_explained():
        return NcnnPredictor(path, threads=threads)


@hookimpl
def edgeopt_quantizers() -> Iterator[QuantizerPlugin]:
    """The quantizers of this package."""
    yield QuantizerPlugin(
        "ncnn",
        "Static int8 for ncnn: symmetric inputs and weights of layers, all else in float.",
        NcnnQuantizerOptions,
        build=build_quantizer,
        scheme=Scheme.INT8_SYMMETRIC_INPUTS,
        requires=("torchao",),
        install=INSTALL,
    )


@hookimpl
def edgeopt_exporters() -> Iterator[ExporterPlugin]:
    """The exporters of this package."""
    yield ExporterPlugin(
        "ncnn",
        "A .param file with its .bin for phones and boards, made by pnnx.",
        NcnnOptions,
        export=export,
        open=open_file,
        check=check,
        baseline=baseline,
        runtime="ncnn",
        suffix=".ncnn.param",
        runtime_modules=("edgeopt_ncnn.predictor",),
        on_device=OnDevice(("edgeopt_ncnn.on_device",), ("ncnn",)),
        requires=("ncnn", "pnnx"),
        install=INSTALL,
        no_int16="rounds what enters a layer to 8 bits",
    )
