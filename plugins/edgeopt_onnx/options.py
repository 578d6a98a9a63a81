"""The options of the exporter `onnx`, what its modules share, and the problems that the options alone show."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field

from edgeopt.export.refusals import NO_ZERO_POINTS, float_programs_only, other_schemes
from edgeopt.networks.bits import PACKED_BITS
from edgeopt.plugins import ExporterOptions, Numerics, Problem

Target: TypeAlias = Literal["x86", "arm", "tensorrt"]
Precision: TypeAlias = Literal["program", "auto", "float16", "dynamic-int8", "weight-only-int8"]
ExternalData: TypeAlias = Literal["auto", "always"]

CONVERTED: tuple[Precision, ...] = ("float16", "dynamic-int8", "weight-only-int8")
"""The precisions that are made from a float program, when it is exported."""

INPUT_NAME = "input"
CARD_KEY = "edgeopt_card"
"""Key of the card's JSON text in the file's `metadata_props`."""

DEFAULT_OPSET = 20
LOWEST_INT4_OPSET = 21
"""The first operator set with integers of four bits."""

NO_INT16 = "would round to int16 and compute in float: ONNX Runtime's processor has no layer that multiplies int16"
"""Why a file for ONNX Runtime has none: QuantizeLinear takes int16 since operator set 21, and no kernel of a layer."""


class OnnxOptions(ExporterOptions):
    """An `.onnx` file."""

    opset: int | None = Field(
        None,
        ge=17,
        le=23,
        description="version of the ONNX operator set; when left out 20, or 21 where weights take four bits",
    )
    dynamic_batch: bool = Field(True, description="take batches of any size, not single images alone")
    target: Target = Field(
        "x86", description="for whose fusion a quantized graph is written; x86 has uint8 activations, the others int8"
    )
    precision: Precision = Field(
        "program",
        description='what the file computes in: "program" as the passes made it, "auto" with those operators left in '
        "float that cost more in int8, the others converted from a float model",
    )
    costs: str | None = Field(
        None,
        min_length=1,
        description='by what operators cost on which processor precision "auto" chooses: "x86-vnni" as recorded, '
        '"measured" on this machine, or a file that `python -m edgeopt_onnx.auto.measure FILE` wrote on the device; '
        "when left out, recorded where this processor has AVX-512 with VNNI, and measured elsewhere",
        examples=["x86-vnni", "measured", "costs.toml"],
    )
    external_data: ExternalData = Field(
        "auto", description="put the weights into a file beside the model: where they exceed 2 GB, or always"
    )


def float_options(options: OnnxOptions) -> OnnxOptions:
    """The options of the float file that one with `options` is compared with."""
    return options.model_copy(update={"precision": "program", "target": "x86", "costs": None})


def for_batch(options: OnnxOptions, _images: int) -> OnnxOptions:
    """The options of a file that takes several images in a call."""
    return options.model_copy(update={"dynamic_batch": True})


def companion(path: Path) -> Path:
    """The file of the weights that stands beside `path` where they are not inside."""
    return path.with_name(f"{path.name}.data")


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
            f"TensorRT has no convolution with weights of {bits} bits: it takes INT4 in matrix products alone, "
            "scaled by blocks",
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
    if options.precision == "auto" and options.target == "tensorrt":
        yield Problem(
            'precision "auto" goes by costs in ONNX Runtime, and TensorRT has others',
            'use precision = "program"',
            option="precision",
        )
    if options.costs is not None and options.precision != "auto":
        yield Problem(
            'costs are what precision "auto" chooses by, and this file takes another precision',
            'leave `costs` out, or take precision = "auto"',
            option="costs",
        )
    if options.target == "tensorrt":
        yield from no_packed_weights(numerics.bits.weights)
    elif numerics.bits.weights <= PACKED_BITS and (options.opset or LOWEST_INT4_OPSET) < LOWEST_INT4_OPSET:
        yield opset_too_low(options.opset, numerics.bits.weights)
    if options.target == "tensorrt":
        hint = 'use quantizer = "tensorrt", or "xnnpack-symmetric" for one program that the others take as well'
        yield from other_schemes("TensorRT", NO_ZERO_POINTS, numerics, hint, option="target")
