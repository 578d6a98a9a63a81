"""Declares the quantizer `ncnn` and the exporter `ncnn`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

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
    QuantizerPlugin,
    Scheme,
    TappedFile,
    TapRequest,
    hookimpl,
    without_conversion,
)
from edgeopt_ncnn.options import NcnnOptions, NcnnQuantizerOptions, check

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


def tap(request: TapRequest) -> TappedFile:
    """Opens a file that shows its inner values; see `edgeopt_ncnn.values`."""
    from edgeopt_ncnn.values import TappedNcnn  # torch, and native code

    return TappedNcnn(request)


def operator_times(request: OperatorTimesRequest) -> list[OperatorTime]:
    """What each layer takes; see `edgeopt_ncnn.values`."""
    from edgeopt_ncnn import values  # ncnn is native code

    return values.operator_times(request)


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
        tap=tap,
        operator_times=operator_times,
        check=check,
        baseline=without_conversion,
        runtime="ncnn",
        suffix=".ncnn.param",
        runtime_modules=("edgeopt_ncnn.predictor",),
        on_device=OnDevice(("edgeopt_ncnn.on_device", "edgeopt.export.companions"), ("ncnn",)),
        companions=companions,
        requires=("ncnn", "pnnx"),
        install=INSTALL,
        no_int16="rounds what enters a layer to 8 bits",
    )
