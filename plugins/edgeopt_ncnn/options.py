"""The options of ncnn's quantizer and of its exporter, and the problems that the options alone show."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from edgeopt.export.refusals import NO_ZERO_POINTS, float_programs_only, other_schemes, whole_activations_only
from edgeopt.plugins import HalfOptions, Numerics, ObserverOptions, Problem

EIGHT_BITS = "ncnn rounds activations to eight bits"


class NcnnQuantizerOptions(ObserverOptions):
    """The numerics of ncnn's int8."""

    all_layers: bool = Field(
        False,
        description="round depthwise convolutions too, and those of few channels: slower than in float on x86",
    )


class NcnnOptions(HalfOptions):
    """A `.param` file with its `.bin`."""


def check(options: NcnnOptions, numerics: Numerics) -> Iterator[Problem]:
    """What cannot work, before anything runs."""
    hint = 'use quantizer = "ncnn", or "xnnpack-symmetric" for one program that the others take as well'
    yield from other_schemes("ncnn", NO_ZERO_POINTS, numerics, hint)
    yield from whole_activations_only("ncnn", EIGHT_BITS, numerics)
    yield from float_programs_only(options.precision, numerics)
