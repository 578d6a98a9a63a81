"""The options of the exporter `coreml`, and the problems that the options alone show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from edgeopt.export.refusals import NO_ZERO_POINTS, float_programs_only, other_schemes, whole_activations_only
from edgeopt.plugins import ExporterOptions, Numerics, Problem, Scheme

DeploymentTarget = Literal["iOS16", "iOS17", "iOS18"]
SYSTEMS: dict[int, tuple[DeploymentTarget, int]] = {7: ("iOS16", 13), 8: ("iOS17", 14), 9: ("iOS18", 15)}
"""The iOS, and the macOS of the same year, that are the first to open a file, by the version of its format."""
EIGHT_BITS = "Core ML rounds activations to eight bits"
_TAKES = (Scheme.INT8_AFFINE, *NO_ZERO_POINTS)


class CoreMlOptions(ExporterOptions):
    """A `.mlpackage`, zipped."""

    precision: Literal["program", "float16", "weight-only-int8"] = Field(
        "program", description='what to make of a float program; "program" for what the passes gave'
    )
    arithmetic: Literal["float16", "float32"] = Field(
        "float16", description="of int8 files, where they do not round: the Neural Engine knows float16 alone"
    )
    deployment_target: DeploymentTarget = Field(
        "iOS17",
        description="oldest system that opens the file, or macOS of its year; from iOS18 on 4-bit weights take 4",
    )


def check(options: CoreMlOptions, numerics: Numerics) -> Iterator[Problem]:
    """What cannot work, known from the options and the recipe's quantizers."""
    yield from other_schemes("Core ML", _TAKES, numerics, 'use quantizer = "xnnpack-symmetric" or "xnnpack"')
    if numerics.quantizers and options.deployment_target == "iOS16":
        said = "Core ML rounds activations from iOS17 on, and deployment_target is 'iOS16'"
        yield Problem(said, 'take "iOS17", or `precision` in place of the pass', option="deployment_target")
    yield from whole_activations_only("coreml", EIGHT_BITS, numerics)
    yield from float_programs_only(options.precision, numerics)
    if options.precision == "float16" and options.arithmetic == "float32":
        said = "precision is 'float16', and arithmetic 'float32'"
        yield Problem(said, "leave `arithmetic` out: it is for files of integers", option="arithmetic")
