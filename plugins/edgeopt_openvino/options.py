"""The options of the exporter `openvino`, and the problems that the options alone show."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from edgeopt.export.refusals import float_programs_only
from edgeopt.networks.bits import PACKED_BITS
from edgeopt.plugins import HalfOptions, Numerics, Problem
from edgeopt_onnx.options import OnnxOptions


class OpenVinoOptions(HalfOptions):
    """An `.xml` file with its weights in a `.bin` beside it."""

    dynamic_batch: bool = Field(False, description="take batches of any size, which costs small networks time")

    def as_onnx(self) -> OnnxOptions:
        """The options of the exporter `onnx` that write what the file is made of."""
        return OnnxOptions(dynamic_batch=self.dynamic_batch, input=self.input, ends=self.ends)


def for_batch(options: OpenVinoOptions, _images: int) -> OpenVinoOptions:
    """The options of a file that takes several images in a call."""
    return options.model_copy(update={"dynamic_batch": True})


def no_packed_weights(bits: int) -> Problem:
    """The problem of weights of four bits or fewer, which OpenVINO's processor multiplies in float."""
    return Problem(
        f"OpenVINO computes no layer in integers whose weights take {bits} bits",
        "give the weights 5 to 8 bits for OpenVINO, or export these with `onnx` or `tflite`",
    )


def check(options: OpenVinoOptions, numerics: Numerics) -> Iterator[Problem]:
    """What cannot work, known from the options and the recipe's quantizers."""
    if numerics.bits.weights <= PACKED_BITS:
        yield no_packed_weights(numerics.bits.weights)
    yield from float_programs_only(options.precision, numerics)
