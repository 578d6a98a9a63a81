"""The options of the exporter `tflm` and of the model `mcu`, and the problems that options alone show. Light."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from edgeopt.networks.bits import WIDE_BITS
from edgeopt.plugins import Numerics, Options, Problem
from edgeopt_tflite.options import TensorType, TfliteOptions
from edgeopt_tflite.options import check as check_tflite

Arch = Literal["ds_cnn", "mobilenet_v1_025", "person_detect"]


class TflmOptions(Options):
    """An int8 or 16x8 `.tflite` file for microcontrollers, int8 or int16 going in and coming out."""

    sources: bool = Field(
        True, description="write C++ beside the file: the array, its preprocessing, labels, arena and operators"
    )


class McuOptions(Options):
    """Which small network."""

    arch: Arch = Field(
        "ds_cnn",
        description='"ds_cnn" (24 thousand parameters, for spectrograms and small images), "person_detect" (0.1 '
        'million) or "mobilenet_v1_025" (0.2 million)',
    )


def as_tflite(activation_bits: int | None) -> TfliteOptions:
    """The options of the exporter `tflite` that write the file to begin with; None for a program in float."""
    types: dict[int | None, TensorType] = {None: "float32", WIDE_BITS: "int16"}
    return TfliteOptions(quantized_io=types.get(activation_bits, "int8"), int4_weights="int8")


def check(_options: TflmOptions, numerics: Numerics) -> Iterator[Problem]:
    """What cannot work, known from the recipe's quantizers."""
    if not numerics.quantizers:
        yield Problem(
            "a file for microcontrollers is int8 or 16x8, and no pass of this recipe quantizes",
            'add a pass such as "ptq", with quantizer = "xnnpack"',
        )
        return
    yield from check_tflite(as_tflite(numerics.bits.activations), numerics)
