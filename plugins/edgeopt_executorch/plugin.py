"""Declares the quantizer `xnnpack` and the exporter `executorch`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from edgeopt.bits import CONTAINER_BITS, PACKED_BITS, LayerBits
from edgeopt.errors import Problem
from edgeopt.exporting import damaged_explained, float_programs_only, outputs_in_integers
from edgeopt.hookspecs import hookimpl
from edgeopt.plugin import ExportContext, ExporterOptions, ExporterPlugin, Numerics, Options, QuantizerPlugin
from edgeopt.types import ExportResult, ModelState, Predictor

if TYPE_CHECKING:
    from torchao.quantization.pt2e.quantizer import Quantizer

REQUIRES = ("executorch", "torchao")
INSTALL = "edgeopt[executorch]"
_NAMED = 5  # layers that an error names


class XnnpackOptions(Options):
    """The numerics of XNNPACK."""

    per_channel: bool = Field(True, description="a scale for each output channel of a weight, not one for all")


class ExecuTorchOptions(ExporterOptions):
    """A `.pte` file."""

    precision: Literal["program", "float16", "dynamic-int8"] = Field(
        "program",
        description="that of the program, or for a float program: float16 (convolution weights are stored in float32 even so), "
        "or dynamic-int8 (activations are quantized by the range they have at run time)",
    )
    backend: Literal["xnnpack", "coreml", "vulkan", "qnn"] = Field(
        "xnnpack", description="what runs the operators: the CPU, Apple's Neural Engine, a GPU, or Qualcomm's NPU"
    )
    int4_weights: Literal["refuse", "int8"] = Field(
        "refuse",
        description="what becomes of weights of four bits or fewer, which its XNNPACK backend does not pack for convolutions: an "
        "error, or int8, which is exact and takes twice the bytes",
    )
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


def build_symmetric(options: XnnpackOptions, qat: bool) -> Quantizer:
    """XNNPACK's quantizer without zero points; see `edgeopt_executorch.quantizer`."""
    from edgeopt_executorch import quantizer  # executorch is heavy

    return quantizer.build_xnnpack(per_channel=options.per_channel, qat=qat, zero_points=False)


def export(state: ModelState, options: ExecuTorchOptions, context: ExportContext) -> ExportResult:
    """Writes a `.pte` file; see `edgeopt_executorch.state`."""
    from edgeopt_executorch.state import export_state  # executorch is heavy

    return export_state(state, options, context)


def float_options(options: ExecuTorchOptions) -> ExecuTorchOptions:
    """Those of the float file that a converted one is compared with."""
    return options.model_copy(update={"precision": "program"})


def no_int4_weights(bits: int, layers: Sequence[LayerBits] = ()) -> Problem:
    """The problem of weights of four bits or fewer, of all layers or of those named."""
    names = ", ".join(each.name for each in layers[:_NAMED]) + (", …" if len(layers) > _NAMED else "")
    where = f" in {len(layers)} layers ({names})" if layers else ""
    return Problem(
        f"ExecuTorch's XNNPACK backend does not pack weights of {bits} bits{where} with int8 activations",
        'export with `onnx` or `tflite`, which store them in four bits, or take int4_weights = "int8" for twice the bytes',
        option="int4_weights",
    )


def no_narrow_activations(bits: int) -> Problem:
    """The problem of activations of fewer than eight bits."""
    return Problem(
        f"XNNPACK's kernels saturate activations where int8 ends, and those of this program take {bits} bits",
        "give the activations 8 bits for `executorch`, or export with `onnx`, which saturates any",
    )


def check(options: ExecuTorchOptions, numerics: Numerics) -> Iterator[Problem]:
    """What cannot work, before anything runs."""
    yield from outputs_in_integers("XNNPACK", numerics)
    if options.int4_weights == "refuse" and numerics.bits.weights <= PACKED_BITS:
        yield no_int4_weights(numerics.bits.weights)
    if numerics.bits.activations < CONTAINER_BITS:
        yield no_narrow_activations(numerics.bits.activations)
    if options.precision != "program":
        yield from float_programs_only(options.precision, numerics)
    if options.precision == "dynamic-int8" and options.backend != "xnnpack":
        yield Problem(f"backend {options.backend!r} has no dynamic int8", 'take backend = "xnnpack"', option="backend")


def open_file(path: Path, threads: int) -> Predictor:
    """Opens a `.pte` file in the ExecuTorch runtime."""
    from edgeopt_executorch.predictor import ExecuTorchPredictor  # torch is heavy

    with damaged_explained():
        return ExecuTorchPredictor(path, threads=threads)


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
    yield QuantizerPlugin(
        "xnnpack-symmetric",
        "Static int8 without zero points: one program for CPUs and for TensorRT.",
        XnnpackOptions,
        build=build_symmetric,
        scheme="int8-symmetric",
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
        baseline=float_options,
        check=check,
        runtime="executorch",
        suffix=".pte",
        runtime_modules=("edgeopt_executorch.predictor",),
        requires=REQUIRES,
        install=INSTALL,
    )
