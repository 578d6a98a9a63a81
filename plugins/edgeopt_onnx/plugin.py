"""Declares the exporter `onnx`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from edgeopt.bits import PACKED_BITS
from edgeopt.errors import Problem
from edgeopt.exporting import damaged_explained, float_programs_only
from edgeopt.hookspecs import hookimpl
from edgeopt.plugin import ExportContext, ExporterOptions, ExporterPlugin, Numerics
from edgeopt.types import ExportResult, ModelState, Predictor

DEFAULT_OPSET = 20
LOWEST_INT4_OPSET = 21
"""The first operator set with integers of four bits."""


class OnnxOptions(ExporterOptions):
    """An `.onnx` file."""

    opset: int | None = Field(
        None,
        ge=17,
        le=23,
        description="version of the ONNX operator set; when left out 20, or 21 where weights take four bits",
    )
    dynamic_batch: bool = Field(True, description="take batches of any size, not single pictures alone")
    target: Literal["x86", "arm", "tensorrt"] = Field(
        "x86", description="for whose fusion a quantized graph is written; x86 has uint8 activations, the others int8"
    )
    precision: Literal["program", "auto", "float16", "dynamic-int8", "weight-only-int8"] = Field(
        "program",
        description='what the file computes in: "program" as the passes made it, "auto" with those operators left in float '
        "that cost more in int8, the others converted from a float model",
    )
    external_data: Literal["auto", "always"] = Field(
        "auto", description="put the weights into a file beside the model: where they exceed 2 GB, or always"
    )


def export(state: ModelState, options: OnnxOptions, context: ExportContext) -> ExportResult:
    """Writes an `.onnx` file; see `edgeopt_onnx.state`."""
    from edgeopt_onnx.state import export_state  # onnx and torch are heavy

    return export_state(state, options, context)


def float_options(options: OnnxOptions) -> OnnxOptions:
    """The options of the float file that one with `options` is compared with."""
    return options.model_copy(update={"precision": "program", "target": "x86"})


def opset_too_low(opset: int | None, bits: int) -> Problem:
    """The problem of weights of four bits or fewer in an operator set without such a type."""
    return Problem(
        f"ONNX opset {opset} has no integers of four bits, and weights of this program take {bits}",
        f"leave `opset` out, or take {LOWEST_INT4_OPSET} or later",
        option="opset",
    )


def no_packed_weights(bits: int) -> Iterator[Problem]:
    """The problem of weights of four bits or fewer for TensorRT."""
    if bits <= PACKED_BITS:
        yield Problem(
            f"TensorRT has no convolution with weights of {bits} bits: it takes INT4 in matrix products alone, scaled by blocks",
            "give the weights 5 to 8 bits for TensorRT, or export these with `onnx` or `tflite`",
        )


def check(options: OnnxOptions, numerics: Numerics) -> Iterator[Problem]:
    """What cannot work, known from the options and the recipe's quantizers."""
    if options.precision not in ("program", "auto"):
        yield from float_programs_only(options.precision, numerics)
    if options.precision == "auto" and not numerics.quantizers:
        yield Problem(
            'precision "auto" leaves operators of an int8 model in float, and no pass of this recipe makes one',
            "add a pass such as `ptq`, or leave `precision` out",
            option="precision",
        )
    if options.precision == "auto" and options.target != "x86":
        yield Problem(
            f'precision "auto" goes by measured costs, and there are none for target {options.target!r}',
            'use precision = "program"',
            option="precision",
        )
    if options.target == "tensorrt":
        yield from no_packed_weights(numerics.bits.weights)
    elif numerics.bits.weights <= PACKED_BITS and (options.opset or LOWEST_INT4_OPSET) < LOWEST_INT4_OPSET:
        yield opset_too_low(options.opset, numerics.bits.weights)
    if options.target == "tensorrt" and any(each.scheme == "int8-affine" for each in numerics.quantizers):
        yield Problem(
            f"TensorRT takes symmetric int8 alone, and quantizer {numerics.quantizers[-1].name!r} has zero points",
            'quantize with `quantizer = "tensorrt"`',
            option="target",
        )


def open_file(path: Path, threads: int) -> Predictor:
    """Opens an `.onnx` file in ONNX Runtime."""
    from edgeopt_onnx.predictor import OnnxPredictor  # onnxruntime is heavy

    with damaged_explained():
        return OnnxPredictor(path, threads=threads)


@hookimpl
def edgeopt_exporters() -> Iterator[ExporterPlugin]:
    """The exporters of this package."""
    yield ExporterPlugin(
        "onnx",
        "An .onnx file; int8 as QuantizeLinear and DequantizeLinear.",
        OnnxOptions,
        export=export,
        open=open_file,
        runtime="onnxruntime",
        suffix=".onnx",
        format="onnx",
        baseline=float_options,
        check=check,
        runtime_modules=("edgeopt_onnx.predictor",),
        requires=("onnx", "onnxscript", "onnxruntime"),
        install="edgeopt[onnx]",
    )
