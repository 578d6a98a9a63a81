"""Declares the quantizer `tensorrt` and the exporters `tensorrt` and `tensorrt-rtx`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from edgeopt.errors import Problem
from edgeopt.exporting import damaged_explained, float_programs_only
from edgeopt.hookspecs import hookimpl
from edgeopt.plugin import ExportContext, ExporterOptions, ExporterPlugin, Numerics, Options, QuantizerPlugin
from edgeopt.settings import PosixPath
from edgeopt.types import ExportResult, ModelState, Predictor
from edgeopt_onnx.plugin import no_packed_weights

if TYPE_CHECKING:
    from torchao.quantization.pt2e.quantizer import Quantizer

SCHEME = "int8-symmetric"
REQUIRES = ("onnx", "onnxscript", "onnxruntime")
INSTALL, RTX_INSTALL = "edgeopt[tensorrt]", "edgeopt[tensorrt-rtx]"
RUNTIME, RTX_RUNTIME = "tensorrt", "tensorrt-rtx"  # where no GPU is, ONNX Runtime stands in, and the export says so
RUNTIME_MODULES = ("edgeopt_tensorrt.predictor",)

Precision = Literal["program", "float16"]
Opset = Literal[17, 18, 19, 20, 21, 22, 23]


class TensorRtQuantizerOptions(Options):
    """The numerics of TensorRT."""

    observer: Literal["histogram", "minmax"] = Field(
        "histogram",
        description="how `ptq` finds the range of an activation: with rare large values cut off, or of all values",
    )
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

    batch: int = Field(1, ge=1, le=1024, description="pictures in a call, exactly; of a range, no two builds are alike")
    compute_capabilities: tuple[Literal["7.5", "8.0", "8.6", "8.9", "12.0", "12.1"], ...] = Field(
        (), description="kinds of GPU to build for; every one from 8.0 on when left out"
    )

    @model_validator(mode="after")
    def _each_once(self) -> RtxOptions:
        if len(set(self.compute_capabilities)) != len(self.compute_capabilities):
            raise ValueError("compute_capabilities names one twice")
        return self


class ProgramOptions(ExporterOptions):
    """What is made of a program of PyTorch."""

    precision: Precision = Field(
        "program", description='"float16" for half of the bits of a float program; "program" for what the passes gave'
    )
    opset: Opset = Field(19, description="version of the ONNX operator set; an older TensorRT wants a lower one")


class TensorRtOptions(ProgramOptions, BundleOptions):
    """A `.zip` that builds on the device."""


class TensorRtRtxOptions(ProgramOptions, RtxOptions):
    """A `.zip` with an engine for TensorRT for RTX."""


class OnnxTensorRtOptions(BundleOptions):
    """A `.zip` that builds on the device, of an ONNX file."""


class OnnxTensorRtRtxOptions(RtxOptions):
    """A `.zip` with an engine for TensorRT for RTX, of an ONNX file."""


def build_quantizer(options: TensorRtQuantizerOptions, qat: bool) -> Quantizer:
    """TensorRT's quantizer; see `edgeopt_tensorrt.quantizer`."""
    from edgeopt_tensorrt.quantizer import build_tensorrt  # torch is heavy

    return build_tensorrt(qat=qat, observer=options.observer, residual=options.residual)


def export(state: ModelState, options: TensorRtOptions, context: ExportContext) -> ExportResult:
    """Writes a bundle; see `edgeopt_tensorrt.export`."""
    from edgeopt_tensorrt.export import export_bundle  # onnx and torch are heavy

    return export_bundle(state, options, context)


def export_rtx(state: ModelState, options: TensorRtRtxOptions, context: ExportContext) -> ExportResult:
    """Writes a bundle with an engine; see `edgeopt_tensorrt.export`."""
    from edgeopt_tensorrt import export  # onnx and torch are heavy

    return export.export_rtx(state, options, context)


def convert(state: ModelState, options: OnnxTensorRtOptions, context: ExportContext) -> ExportResult:
    """Writes a bundle of an ONNX file as it is; see `edgeopt_tensorrt.export`."""
    from edgeopt_tensorrt.export import convert_bundle  # onnx and torch are heavy

    return convert_bundle(state, options, context)


def convert_rtx(state: ModelState, options: OnnxTensorRtRtxOptions, context: ExportContext) -> ExportResult:
    """Writes a bundle with an engine of an ONNX file as it is; see `edgeopt_tensorrt.export`."""
    from edgeopt_tensorrt import export  # onnx and torch are heavy

    return export.convert_rtx(state, options, context)


def open_file(path: Path, threads: int) -> Predictor:
    """Opens a bundle with TensorRT, or in ONNX Runtime where that is not here."""
    return _open(path, "tensorrt", threads)


def open_rtx_file(path: Path, threads: int) -> Predictor:
    """Opens a bundle with TensorRT for RTX, or in ONNX Runtime where there is no GPU."""
    return _open(path, "tensorrt_rtx", threads)


def _open(path: Path, module: str, threads: int) -> Predictor:
    from edgeopt_tensorrt.predictor import open_bundle  # onnxruntime is heavy

    with damaged_explained():
        return open_bundle(path, module, threads)


def check(options: ProgramOptions, numerics: Numerics) -> Iterator[Problem]:
    """TensorRT takes symmetric int8 and nothing else, with scales that half precision does not hold."""
    for quantizer in numerics.quantizers:
        if not quantizer.scheme.startswith(SCHEME):
            gives = "gives zero points" if quantizer.scheme == "int8-affine" else f"does not say that it gives {SCHEME}"
            text = f"the quantizer {quantizer.name!r} {gives}, and TensorRT takes no zero points"
            yield Problem(
                text, 'use quantizer = "tensorrt", or "xnnpack-symmetric" for one program that the others take as well'
            )
    yield from no_packed_weights(numerics.bits.weights)
    if options.precision == "float16":
        # The scale of an int8 convolution's sums, the product of two scales, is below what float16 can tell from zero.
        yield from float_programs_only(options.precision, numerics)


def baseline(options: ProgramOptions) -> ProgramOptions:
    """The options of the float32 file."""
    return options.model_copy(update={"precision": "program"})


@hookimpl
def edgeopt_quantizers() -> Iterator[QuantizerPlugin]:
    """The quantizers of this package."""
    yield QuantizerPlugin(
        "tensorrt",
        "Static int8 for TensorRT: symmetric weights and activations, float bias.",
        TensorRtQuantizerOptions,
        build=build_quantizer,
        scheme=f"{SCHEME}-inputs",
        requires=("torchao",),
        install=INSTALL,
    )


@hookimpl
def edgeopt_exporters() -> Iterator[ExporterPlugin]:
    """The exporters of this package."""
    yield ExporterPlugin(
        "tensorrt",
        "A bundle that builds a TensorRT engine on the device; with the engine inside where a GPU is here.",
        TensorRtOptions,
        export=export,
        open=open_file,
        check=check,
        baseline=baseline,
        runtime=RUNTIME,
        suffix=".tensorrt.zip",
        runtime_modules=RUNTIME_MODULES,
        is_folder=True,
        requires=REQUIRES,
        optional=("tensorrt",),
        install=INSTALL,
    )
    yield ExporterPlugin(
        "tensorrt-rtx",
        "An engine of TensorRT for RTX, built ahead of time, with the ONNX file behind it.",
        TensorRtRtxOptions,
        export=export_rtx,
        open=open_rtx_file,
        check=check,
        baseline=baseline,
        runtime=RTX_RUNTIME,
        suffix=".tensorrt-rtx.zip",
        runtime_modules=RUNTIME_MODULES,
        is_folder=True,
        requires=(*REQUIRES, "tensorrt-rtx"),
        install=RTX_INSTALL,
    )
    yield ExporterPlugin(
        "onnx-tensorrt",
        "A bundle that builds a TensorRT engine of an ONNX file on the device.",
        OnnxTensorRtOptions,
        export=convert,
        open=open_file,
        framework="onnx",
        format="tensorrt",
        runtime=RUNTIME,
        suffix=".tensorrt.zip",
        runtime_modules=RUNTIME_MODULES,
        is_folder=True,
        requires=REQUIRES,
        optional=("tensorrt",),
        install=INSTALL,
    )
    yield ExporterPlugin(
        "onnx-tensorrt-rtx",
        "An engine of TensorRT for RTX of an ONNX file, built ahead of time.",
        OnnxTensorRtRtxOptions,
        export=convert_rtx,
        open=open_rtx_file,
        framework="onnx",
        format="tensorrt-rtx",
        runtime=RTX_RUNTIME,
        suffix=".tensorrt-rtx.zip",
        runtime_modules=RUNTIME_MODULES,
        is_folder=True,
        requires=(*REQUIRES, "tensorrt-rtx"),
        install=RTX_INSTALL,
    )
