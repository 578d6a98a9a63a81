"""Declares the quantizer `xnnpack` and the exporter `executorch`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.export.predictor import damaged_explained
from edgeopt.export.refusals import OUTPUTS_QUANTIZED, float_programs_only, other_schemes, whole_activations_only
from edgeopt.networks.bits import PACKED_BITS
from edgeopt.plugins import (
    Accelerator,
    AcceleratorAnswer,
    AcceleratorRequest,
    ExportContext,
    ExporterPlugin,
    ExportResult,
    ModelState,
    Numerics,
    OnDevice,
    Predictor,
    Problem,
    QuantizerPlugin,
    Scheme,
    TappedFile,
    TapRequest,
    hookimpl,
    without_conversion,
)
from edgeopt_executorch.options import (
    SATURATES,
    ExecuTorchOptions,
    XnnpackOptions,
    no_int4_weights,
)

if TYPE_CHECKING:
    from torchao.quantization.pt2e.quantizer import Quantizer


REQUIRES = ("executorch", "torchao")
INSTALL = "edgeopt[executorch]"


def build_xnnpack(options: XnnpackOptions, qat: bool) -> Quantizer:
    """XNNPACK's quantizer; see `edgeopt_executorch.quantizer`."""
    from edgeopt_executorch import quantizer  # executorch is heavy

    return quantizer.build_xnnpack(per_channel=options.per_channel, qat=qat)


def build_symmetric(options: XnnpackOptions, qat: bool) -> Quantizer:
    """XNNPACK's quantizer without zero points; see `edgeopt_executorch.quantizer`."""
    from edgeopt_executorch import quantizer  # executorch is heavy

    return quantizer.build_xnnpack(per_channel=options.per_channel, qat=qat, zero_points=False)


def export(state: ModelState, options: ExecuTorchOptions, context: ExportContext) -> ExportResult:
    """Writes a `.pte` file; see `edgeopt_executorch.exporter`."""
    from edgeopt_executorch.exporter import export_state  # executorch is heavy

    return export_state(state, options, context)


def for_batch(options: ExecuTorchOptions, images: int) -> ExecuTorchOptions:
    """Those of a file that takes so many images in a call, or fewer."""
    return options.model_copy(update={"max_batch": images})


def check(options: ExecuTorchOptions, numerics: Numerics) -> Iterator[Problem]:
    """What cannot work, before anything runs."""
    hint = 'take quantizer = "xnnpack", or "xnnpack-symmetric" for one program that TensorRT takes as well'
    yield from other_schemes("XNNPACK", OUTPUTS_QUANTIZED, numerics, hint)
    if options.int4_weights == "refuse" and numerics.bits.weights <= PACKED_BITS:
        yield no_int4_weights(numerics.bits.weights)
    yield from whole_activations_only("executorch", SATURATES, numerics)
    yield from float_programs_only(options.precision, numerics)
    if options.precision == "dynamic-int8" and options.backend != "xnnpack":
        yield Problem(f"backend {options.backend!r} has no dynamic int8", 'take backend = "xnnpack"', option="backend")
    if options.chip is not None and options.backend != "qnn":
        yield Problem(
            f"chip is one of Qualcomm's, and backend {options.backend!r} compiles for none",
            'take backend = "qnn", or leave `chip` out',
            option="chip",
        )


def open_file(path: Path, threads: int) -> Predictor:
    """Opens a `.pte` file in the ExecuTorch runtime."""
    from edgeopt_executorch.predictor import ExecuTorchPredictor  # torch is heavy

    with damaged_explained():
        return ExecuTorchPredictor(path, threads=threads)


def tap(request: TapRequest) -> TappedFile:
    """Opens a file so that it shows its inner values; see `edgeopt_executorch.tap`."""
    from edgeopt_executorch.tap import TappedExecuTorch  # executorch is heavy

    return TappedExecuTorch(request)


def ask_coreml(request: AcceleratorRequest) -> AcceleratorAnswer:
    """What Core ML takes; see `edgeopt_executorch.accelerators`."""
    from edgeopt_executorch import accelerators  # executorch is heavy

    return accelerators.ask_coreml(request)


def ask_vulkan(request: AcceleratorRequest) -> AcceleratorAnswer:
    """What a GPU takes through Vulkan; see `edgeopt_executorch.accelerators`."""
    from edgeopt_executorch import accelerators  # executorch is heavy

    return accelerators.ask_vulkan(request)


def ask_qnn(request: AcceleratorRequest) -> AcceleratorAnswer:
    """What Qualcomm's NPU takes; see `edgeopt_executorch.accelerators`."""
    from edgeopt_executorch import accelerators  # executorch is heavy

    return accelerators.ask_qnn(request)


ACCELERATORS = (
    Accelerator(
        "coreml",
        "Apple's Core ML: Neural Engine, GPU and CPU, as it sees fit.",
        ask_coreml,
        requires=("coremltools",),
        install="coremltools",
    ),
    Accelerator("vulkan", "A GPU of Android, through Vulkan.", ask_vulkan),
    Accelerator("qnn", "Qualcomm's NPU, through its AI Engine Direct.", ask_qnn),
)


@hookimpl
def edgeopt_quantizers() -> Iterator[QuantizerPlugin]:
    """The quantizers of this package."""
    yield QuantizerPlugin(
        "xnnpack",
        "Static int8 for CPUs: symmetric weights, affine activations.",
        XnnpackOptions,
        build=build_xnnpack,
        scheme=Scheme.INT8_AFFINE,
        requires=REQUIRES,
        install=INSTALL,
    )
    yield QuantizerPlugin(
        "xnnpack-symmetric",
        "Static int8 without zero points: one program for CPUs and for TensorRT.",
        XnnpackOptions,
        build=build_symmetric,
        scheme=Scheme.INT8_SYMMETRIC,
        requires=REQUIRES,
        install=INSTALL,
    )


@hookimpl
def edgeopt_exporters() -> Iterator[ExporterPlugin]:
    """The exporters of this package."""
    yield ExporterPlugin(
        "executorch",
        "A .pte file for phones and boards, its operators delegated to XNNPACK.",
        ExecuTorchOptions,
        export=export,
        open=open_file,
        tap=tap,
        baseline=without_conversion,
        check=check,
        for_batch=for_batch,
        runtime="executorch",
        suffix=".pte",
        runtime_modules=("edgeopt_executorch.predictor",),
        on_device=OnDevice(
            ("edgeopt_executorch.on_device", "edgeopt_executorch.native_messages"), ("executorch", "torch")
        ),
        accelerators=ACCELERATORS,
        no_int16="has XNNPACK's integers, which are of 8 bits",
        requires=REQUIRES,
        install=INSTALL,
    )
