"""The options of TensorRT's quantizer and exporters, and the problems that the options alone show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator

from edgeopt.export.refusals import NO_ZERO_POINTS, float_programs_only, other_schemes
from edgeopt.plugins import HalfOptions, Numerics, ObserverOptions, Options, PosixPath, Problem
from edgeopt_onnx.options import no_packed_weights

Precision = Literal["program", "float16"]
Opset = Literal[17, 18, 19, 20, 21, 22, 23]


class TensorRtQuantizerOptions(ObserverOptions):
    """The numerics of TensorRT."""

    residual: bool = Field(
        True, description="quantize the other side of a sum with a convolution, which TensorRT then fuses into it"
    )


class BatchProfile(Options):
    """The batches that an engine takes."""

    min: int = Field(1, ge=1, le=1024, description="smallest batch")
    opt: int = Field(1, ge=1, le=1024, description="the batch that the engine is tuned for")
    max: int = Field(1, ge=1, le=1024, description="largest batch")

    @model_validator(mode="after")
    def _in_order(self) -> BatchProfile:
        if not self.min <= self.opt <= self.max:
            raise ValueError(f"min, opt and max are {self.min}, {self.opt} and {self.max}, not in that order")
        return self


class BundleOptions(Options):
    """What to build on the device."""

    batch: BatchProfile = Field(default_factory=BatchProfile, description="the batches that the engine takes")
    workspace_mib: int | None = Field(
        None, ge=1, le=1 << 20, description="largest scratch memory of a layer, MiB; all there is when left out"
    )
    timing_cache: PosixPath | None = Field(
        None, description="file that keeps TensorRT's timings from one build to the next, where a GPU is here"
    )


class RtxOptions(Options):
    """What to build ahead of time."""

    batch: int = Field(1, ge=1, le=1024, description="images in a call, exactly; of a range, no two builds are alike")
    compute_capabilities: tuple[Literal["7.5", "8.0", "8.6", "8.9", "12.0", "12.1"], ...] = Field(
        (), description="kinds of GPU to build for; every one from 8.0 on when left out"
    )

    @model_validator(mode="after")
    def _each_once(self) -> RtxOptions:
        if len(set(self.compute_capabilities)) != len(self.compute_capabilities):
            raise ValueError("compute_capabilities names one twice")
        return self


class ProgramOptions(HalfOptions):
    """What is made of a program of PyTorch."""

    opset: Opset = Field(19, description="version of the ONNX operator set; an older TensorRT wants a lower one")


class TensorRtOptions(ProgramOptions, BundleOptions):
    """A `.zip` that builds on the device."""


class TensorRtRtxOptions(ProgramOptions, RtxOptions):
    """A `.zip` with an engine for TensorRT for RTX."""


class OnnxTensorRtOptions(BundleOptions):
    """A `.zip` that builds on the device, of an ONNX file."""


class OnnxTensorRtRtxOptions(RtxOptions):
    """A `.zip` with an engine for TensorRT for RTX, of an ONNX file."""


def check(options: ProgramOptions, numerics: Numerics) -> Iterator[Problem]:
    """TensorRT takes symmetric int8 and nothing else, with scales that half precision does not hold."""
    hint = 'use quantizer = "tensorrt", or "xnnpack-symmetric" for one program that the others take as well'
    yield from other_schemes("TensorRT", NO_ZERO_POINTS, numerics, hint)
    yield from no_packed_weights(numerics.bits.weights)
    # The scale of an int8 convolution's sums, the product of two scales, is below what float16 can tell from zero.
    yield from float_programs_only(options.precision, numerics)
