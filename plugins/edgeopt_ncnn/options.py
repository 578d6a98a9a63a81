"""The options of ncnn's quantizer and of its exporter, and the problems that the options alone show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from edgeopt.export.refusals import NO_ZERO_POINTS, float_programs_only, other_schemes
from edgeopt.networks.bits import CONTAINER_BITS
from edgeopt.plugins import ExporterOptions, Numerics, Options, Problem


class NcnnQuantizerOptions(Options):
    """The numerics of ncnn's int8."""

    observer: Literal["histogram", "minmax"] = Field(
        "histogram", description="how calibration finds an activation's range: with the least error, or the whole of it"
    )
    all_layers: bool = Field(
        False,
        description="round depthwise convolutions too, and those of few channels: slower than in float on x86",
    )


class NcnnOptions(ExporterOptions):
    """A `.param` file with its `.bin`."""

    precision: Literal["program", "float16"] = Field(
        "program", description='"float16" for half of the bits of a float program; "program" for what the passes gave'
    )


def baseline(options: NcnnOptions) -> NcnnOptions:
    """The options of the float32 file."""
    return options.model_copy(update={"precision": "program"})


def check(options: NcnnOptions, numerics: Numerics) -> Iterator[Problem]:
    """What cannot work, before anything runs."""
    hint = 'use quantizer = "ncnn", or "xnnpack-symmetric" for one program that the others take as well'
    yield from other_schemes("ncnn", NO_ZERO_POINTS, numerics, hint)
    if numerics.bits.activations < CONTAINER_BITS:
        yield Problem(
            f"ncnn rounds activations to eight bits, and those of this program take {numerics.bits.activations}",
            "give the activations 8 bits for `ncnn`, or export with `onnx`, which saturates any",
        )
    if options.precision != "program":
        yield from float_programs_only(options.precision, numerics)
