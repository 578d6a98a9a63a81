"""Declares the quantizer `xnnpack` and the exporter `executorch`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from edgeopt.errors import ExportError
from edgeopt.hookspecs import hookimpl
from edgeopt.plugin import ExportContext, ExporterOptions, ExporterPlugin, Options, QuantizerPlugin
from edgeopt.types import ExportResult, ModelState, Predictor

if TYPE_CHECKING:
    from torchao.quantization.pt2e.quantizer import Quantizer

REQUIRES = ("executorch", "torchao")
INSTALL = "edgeopt[executorch]"


class XnnpackOptions(Options):
    """The numerics of XNNPACK."""

    per_channel: bool = Field(True, description="a scale for each output channel of a weight, not one for all")


class ExecuTorchOptions(ExporterOptions):
    """A `.pte` file."""

    max_batch: int = Field(
        1,
        ge=1,
        le=1024,
        description="largest batch of one call; more than 1 costs a longer export and a second partition",
    )


def build_xnnpack(options: XnnpackOptions, qat: bool) -> Quantizer:
    """XNNPACK's quantizer; see `edgeopt_executorch.quantizer`."""
    from edgeopt_executorch import quantizer  # executorch is heavy

    return quantizer.build_xnnpack(per_channel=options.per_channel, qat=qat)


def export(state: ModelState, options: ExecuTorchOptions, context: ExportContext) -> ExportResult:
    """Writes a `.pte` file; see `edgeopt_executorch.state`."""
    from edgeopt_executorch.state import export_state  # executorch is heavy

    return export_state(state, options.max_batch, context)


def open_file(path: Path, threads: int) -> Predictor:
    """Opens a `.pte` file in the ExecuTorch runtime."""
    from edgeopt_executorch.predictor import ExecuTorchPredictor  # torch is heavy

    try:
        return ExecuTorchPredictor(path, threads=threads)
    except ValueError as error:  # damaged, or not a file of this runtime
        raise ExportError(str(error), hint="export it again") from error


@hookimpl
def edgeopt_quantizers() -> Iterator[QuantizerPlugin]:
    """The quantizers of this package."""
    yield QuantizerPlugin(
        "xnnpack",
        "Static int8 for CPUs: symmetric weights, affine activations.",
        XnnpackOptions,
        build=build_xnnpack,
        scheme="int8-affine",
        requires=REQUIRES,
        install=INSTALL,
    )


@hookimpl
def edgeopt_exporters() -> Iterator[ExporterPlugin]:
    """The exporters of this package."""
    yield ExporterPlugin(
        "executorch",
        "A .pte file for phones and boards, its operators delegated to XNNPACK.",
        ExecuTorchOptions,
        export=export,
        open=open_file,
        runtime="executorch",
        suffix=".pte",
        runtime_modules=("edgeopt_executorch.predictor",),
        requires=REQUIRES,
        install=INSTALL,
    )
