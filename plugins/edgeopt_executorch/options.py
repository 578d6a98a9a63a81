"""The options of ExecuTorch's quantizers and of its exporter, and the problems that more than one module reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from pydantic import Field

from edgeopt.networks.bits import LayerBits
from edgeopt.plugins import ExporterOptions, Options, Problem

Chip: TypeAlias = Literal[
    "QCM6490",
    "QCS9100",
    "SA8255",
    "SA8295",
    "SA8797",
    "SAR2230P",
    "SC8380XP",
    "SM8350",
    "SM8450",
    "SM8475",
    "SM8550",
    "SM8650",
    "SM8750",
    "SM8845",
    "SM8850",
    "SSG2115P",
    "SSG2125P",
    "SW6100",
    "SXR1230P",
    "SXR2230P",
    "SXR2330P",
]
"""The chips that ExecuTorch compiles for with Qualcomm's compiler, by the names of its `QcomChipset`."""
DEFAULT_CHIP: Chip = "SM8650"

SATURATES = "XNNPACK's kernels saturate activations where int8 ends"

CARD_METHOD = "edgeopt_card"
"""The file's constant method that returns the card's JSON text: `program.load_method(CARD_METHOD).execute([])[0]`."""

_NAMED = 5  # layers that an error names


class XnnpackOptions(Options):
    """The numerics of XNNPACK."""

    per_channel: bool = Field(True, description="a scale for each output channel of a weight, not one for all")


class ExecuTorchOptions(ExporterOptions):
    """A `.pte` file."""

    precision: Literal["program", "float16", "dynamic-int8"] = Field(
        "program",
        description="that of the program, or for a float program: float16 (convolution weights are stored in float32 "
        "even so), "
        "or dynamic-int8 (activations are quantized by the range they have at run time)",
    )
    backend: Literal["xnnpack", "coreml", "vulkan", "qnn"] = Field(
        "xnnpack", description="what runs the operators: the CPU, Apple's Neural Engine, a GPU, or Qualcomm's NPU"
    )
    chip: Chip | None = Field(
        None, description='for which of Qualcomm\'s chips backend "qnn" compiles; SM8650 when left out'
    )
    int4_weights: Literal["refuse", "int8"] = Field(
        "refuse",
        description="what becomes of weights of four bits or fewer, which its XNNPACK backend does not pack for "
        "convolutions: an "
        "error, or int8, which is exact and takes twice the bytes",
    )
    max_batch: int = Field(
        1,
        ge=1,
        le=1024,
        description="largest batch of one call; more than 1 costs a longer export and a second partition",
    )


def no_int4_weights(bits: int, layers: Sequence[LayerBits] = ()) -> Problem:
    """The problem of weights of four bits or fewer, of all layers or of those named."""
    names = ", ".join(each.name for each in layers[:_NAMED]) + (", …" if len(layers) > _NAMED else "")
    where = f" in {len(layers)} layers ({names})" if layers else ""
    return Problem(
        f"ExecuTorch's XNNPACK backend does not pack weights of {bits} bits{where} with int8 activations",
        'export with `onnx` or `tflite`, which store them in four bits, or take int4_weights = "int8" for twice the '
        "bytes",
        option="int4_weights",
    )
