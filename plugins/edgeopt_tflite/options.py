"""The options of the exporter `tflite`, and the problems that the options alone show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from edgeopt.export.refusals import OUTPUTS_QUANTIZED, float_programs_only, other_schemes, whole_activations_only
from edgeopt.networks.bits import CONTAINER_BITS
from edgeopt.plugins import ExporterOptions, Numerics, Problem

Precision = Literal["program", "auto", "float16", "dynamic-int8", "weight-only-int8"]
TensorType = Literal["float32", "int8", "uint8", "int16"]

#: Precisions that the exporter makes of a float program by itself.
CONVERTED = ("float16", "dynamic-int8", "weight-only-int8")
SATURATES = "LiteRT's kernels saturate activations where int8 ends"


class TfliteOptions(ExporterOptions):
    """A `.tflite` file."""

    precision: Precision = Field(
        "program",
        description='"program": as the passes left it; "auto": the same, but int8 operators that no int8 layer touches '
        'stay float; of a float model: "float16", "dynamic-int8" (int8 layers, ranges taken at run time) or '
        '"weight-only-int8"',
    )
    quantized_io: TensorType = Field(
        "float32",
        description="type of the input and output of an integer file, int16 for a 16x8 one; float32 keeps an app as it "
        "is",
    )
    int4_weights: Literal["packed", "int8"] = Field(
        "packed",
        description="how weights of four bits or fewer are stored: two to a byte, whose convolutions XNNPACK does not "
        "take, or as int8, which is fast and takes twice the bytes",
    )


def unfit_io(quantized_io: str, *, is_wide: bool) -> Iterator[Problem]:
    """The problem of an input and output of another type than the file computes in."""
    fit = ("float32", "int16") if is_wide else ("float32", "int8", "uint8")
    if quantized_io not in fit:
        computes = "16x8" if is_wide else "int8"
        yield Problem(
            f"quantized_io = {quantized_io!r} does not fit a program that computes in {computes}",
            f"take one of {', '.join(fit)}",
            option="quantized_io",
        )


def baseline(options: TfliteOptions) -> TfliteOptions:
    """The options of the float32 file."""
    return options.model_copy(update={"precision": "program", "quantized_io": "float32"})


def check(options: TfliteOptions, numerics: Numerics) -> Iterator[Problem]:
    """Options that do not fit the numerics of the recipe's program."""
    hint = 'take quantizer = "xnnpack", or "xnnpack-symmetric" for one program that TensorRT takes as well'
    yield from other_schemes("LiteRT", OUTPUTS_QUANTIZED, numerics, hint)
    yield from whole_activations_only("tflite", SATURATES, numerics)
    if options.precision in CONVERTED:
        yield from float_programs_only(options.precision, numerics)
    if options.precision == "auto" and not numerics.quantizers:
        yield Problem(
            'precision "auto" chooses among the operators of an int8 program, and no pass quantizes this one',
            'add a pass such as "ptq", or use precision = "program"',
            option="precision",
        )
    if options.quantized_io != "float32" and not numerics.quantizers:
        yield Problem(
            f"quantized_io = {options.quantized_io!r} needs an integer program, and no pass quantizes this one",
            'add a pass such as "ptq", or use quantized_io = "float32"',
            option="quantized_io",
        )
    elif numerics.quantizers:
        yield from unfit_io(options.quantized_io, is_wide=numerics.bits.activations > CONTAINER_BITS)
