"""Declares the quantizer `tensorrt` and the exporters `tensorrt` and `tensorrt-rtx`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.export.predictor import damaged_explained
from edgeopt.plugins import (
    ExportContext,
    ExporterPlugin,
    ExportResult,
    ModelState,
    Predictor,
    QuantizerPlugin,
    Scheme,
    hookimpl,
    without_conversion,
)
from edgeopt_tensorrt.options import (
    OnnxTensorRtOptions,
    OnnxTensorRtRtxOptions,
    TensorRtOptions,
    TensorRtQuantizerOptions,
    TensorRtRtxOptions,
    check,
)

if TYPE_CHECKING:
    from torchao.quantization.pt2e.quantizer import Quantizer

REQUIRES = ("onnx", "onnxscript", "onnxruntime")
INSTALL, RTX_INSTALL = "edgeopt[tensorrt]", "edgeopt[tensorrt-rtx]"
RUNTIME, RTX_RUNTIME = "tensorrt", "tensorrt-rtx"  # where no GPU is, ONNX Runtime stands in, and the export says so
RUNTIME_MODULES = ("edgeopt_tensorrt.predictor",)


#: Packages of other plugins that the work of this one uses, and that those use.
_NO_INT16 = "has no layer that multiplies them: TensorRT's integers are of 8 and 4 bits"
_LIBRARIES = ("edgeopt_onnx",)


def build_quantizer(options: TensorRtQuantizerOptions, qat: bool) -> Quantizer:
    """TensorRT's quantizer; see `edgeopt_tensorrt.quantizer`."""
    from edgeopt_tensorrt.quantizer import build_tensorrt  # torch is heavy

    return build_tensorrt(qat=qat, observer=options.observer, residual=options.residual)


def export(state: ModelState, options: TensorRtOptions, context: ExportContext) -> ExportResult:
    """Writes a bundle; see `edgeopt_tensorrt.exporter`."""
    from edgeopt_tensorrt.exporter import export_bundle  # onnx and torch are heavy

    return export_bundle(state, options, context)


def export_rtx(state: ModelState, options: TensorRtRtxOptions, context: ExportContext) -> ExportResult:
    """Writes a bundle with an engine; see `edgeopt_tensorrt.exporter`."""
    from edgeopt_tensorrt import exporter  # onnx and torch are heavy

    return exporter.export_rtx(state, options, context)


def convert(state: ModelState, options: OnnxTensorRtOptions, context: ExportContext) -> ExportResult:
    """Writes a bundle of an ONNX file as it is; see `edgeopt_tensorrt.exporter`."""
    from edgeopt_tensorrt.exporter import convert_bundle  # onnx and torch are heavy

    return convert_bundle(state, options, context)


def convert_rtx(state: ModelState, options: OnnxTensorRtRtxOptions, context: ExportContext) -> ExportResult:
    """Writes a bundle with an engine of an ONNX file as it is; see `edgeopt_tensorrt.exporter`."""
    from edgeopt_tensorrt import exporter  # onnx and torch are heavy

    return exporter.convert_rtx(state, options, context)


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


@hookimpl
def edgeopt_quantizers() -> Iterator[QuantizerPlugin]:
    """The quantizers of this package."""
    yield QuantizerPlugin(
        "tensorrt",
        "Static int8 for TensorRT: symmetric weights and activations, float bias.",
        TensorRtQuantizerOptions,
        build=build_quantizer,
        scheme=Scheme.INT8_SYMMETRIC_INPUTS,
        libraries=_LIBRARIES,
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
        baseline=without_conversion,
        runtime=RUNTIME,
        suffix=".tensorrt.zip",
        runtime_modules=RUNTIME_MODULES,
        is_folder=True,
        tails="tensorrt",
        no_int16=_NO_INT16,
        libraries=_LIBRARIES,
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
        baseline=without_conversion,
        runtime=RTX_RUNTIME,
        suffix=".tensorrt-rtx.zip",
        runtime_modules=RUNTIME_MODULES,
        is_folder=True,
        no_int16=_NO_INT16,
        libraries=_LIBRARIES,
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
        libraries=_LIBRARIES,
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
        libraries=_LIBRARIES,
        requires=(*REQUIRES, "tensorrt-rtx"),
        install=RTX_INSTALL,
    )
