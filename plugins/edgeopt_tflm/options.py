"""The options of the exporter `tflm`, and the problems that options alone show. Light."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from edgeopt.networks.bits import WIDE_BITS
from edgeopt.plugins import Numerics, Options, Problem, installed_version
from edgeopt_tflite.options import TensorType, TfliteOptions
from edgeopt_tflite.options import check as check_tflite

VELA = "ethos-u-vela"
U55 = Literal["ethos-u55-32", "ethos-u55-64", "ethos-u55-128", "ethos-u55-256"]
U65 = Literal["ethos-u65-256", "ethos-u65-512"]
U85 = Literal["ethos-u85-128", "ethos-u85-256", "ethos-u85-512", "ethos-u85-1024", "ethos-u85-2048"]
Accelerator = Literal[U55, U65, U85]


class TflmOptions(Options):
    """An int8 or 16x8 `.tflite` file for microcontrollers, int8 or int16 going in and coming out."""

    sources: bool = Field(
        True, description="write C++ beside the file: the array, its preprocessing, labels, arena and operators"
    )
    accelerator: Accelerator | None = Field(
        None,
        description="an Ethos-U for which Arm's compiler Vela estimates the cycles of the int8 file, which card and "
        "report then have as an estimate; needs the extra `ethos-u`",
    )


def as_tflite(values: TensorType) -> TfliteOptions:
    """The options of the exporter `tflite` that write the file to begin with, which computes in `values`."""
    return TfliteOptions(quantized_io=values, int4_weights="int8")


def fingerprint(options: TflmOptions) -> str:
    """The version of the compiler that is asked, which an estimate depends on."""
    return installed_version(VELA) or "" if options.accelerator else ""


def check(options: TflmOptions, numerics: Numerics) -> Iterator[Problem]:
    """What cannot work, known from the options and the recipe's quantizers."""
    if options.accelerator and installed_version(VELA) is None:
        yield Problem(
            f"accelerator = {options.accelerator!r} asks {VELA}, which is not installed",
            "pip install 'edgeopt[ethos-u]', or leave the option out",
        )
    if not numerics.quantizers:
        yield Problem(
            "a file for microcontrollers is int8 or 16x8, and no pass of this recipe quantizes",
            'add a pass such as "ptq", with quantizer = "xnnpack"',
        )
        return
    yield from check_tflite(as_tflite("int16" if numerics.bits.activations == WIDE_BITS else "int8"), numerics)
