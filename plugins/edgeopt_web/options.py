"""The options of the exporters of the browser, and the problems that the options alone show. Light."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from edgeopt.plugins import ExporterOptions, Numerics, Problem
from edgeopt_onnx.options import OnnxOptions, Precision
from edgeopt_onnx.options import check as check_onnx
from edgeopt_tflite.options import Precision as TflitePrecision
from edgeopt_tflite.options import TfliteOptions
from edgeopt_tflite.options import check as check_tflite
from edgeopt_web.browser import find_browser, no_browser


class OnnxWebOptions(ExporterOptions):
    """An `.onnx` file for ONNX Runtime Web."""

    opset: int | None = Field(
        None, ge=17, le=23, description="version of the ONNX operator set; when left out 20, or 21 for four bits"
    )
    dynamic_batch: bool = Field(True, description="take batches of any size, not single images alone")
    precision: Precision = Field(
        "program",
        description='what the file computes in: "program" as the passes made it, "auto" with those operators left in '
        "float that cost more in int8 in WebAssembly, the others converted from a float model",
    )
    costs: str | None = Field(
        None,
        min_length=1,
        description='by what operators cost in WebAssembly precision "auto" chooses: "wasm-x86" as recorded, which is '
        'what it takes when left out, "measured" in the browser of this machine, or a file that '
        "`python -m edgeopt_web.measure FILE` wrote",
        examples=["wasm-x86", "measured", "costs.toml"],
    )

    def as_onnx(self) -> OnnxOptions:
        """The options of the exporter `onnx` that write this file."""
        return OnnxOptions(
            opset=self.opset,
            dynamic_batch=self.dynamic_batch,
            precision=self.precision,
            costs=self.costs,
            input=self.input,
        )


def for_batch(options: OnnxWebOptions, _images: int) -> OnnxWebOptions:
    """The options of a file that takes several images in a call."""
    return options.model_copy(update={"dynamic_batch": True})


class LitertWebOptions(ExporterOptions):
    """A `.tflite` file for LiteRT.js."""

    precision: TflitePrecision = Field(
        "program",
        description='"program": as the passes left it; "auto": the same, but int8 operators that no int8 layer touches '
        'stay float; of a float model: "float16", "dynamic-int8" or "weight-only-int8"',
    )

    def as_tflite(self) -> TfliteOptions:
        """The options of the exporter `tflite` that write this file."""
        return TfliteOptions(precision=self.precision, input=self.input)


def float_onnx_web(options: OnnxWebOptions) -> OnnxWebOptions:
    """The options of the float file that one with `options` is compared with."""
    return options.model_copy(update={"precision": "program", "costs": None})


def check_onnx_web(options: OnnxWebOptions, numerics: Numerics) -> Iterator[Problem]:
    """What cannot work, known from the options, the recipe's quantizers and this machine."""
    yield from check_onnx(options.as_onnx(), numerics)
    yield from _check_browser()


def check_litert_web(options: LitertWebOptions, numerics: Numerics) -> Iterator[Problem]:
    """As `check_onnx_web`."""
    yield from check_tflite(options.as_tflite(), numerics)
    yield from _check_browser()


def _check_browser() -> Iterator[Problem]:
    """Files are opened where they were made: a run without a browser would end without a figure of them."""
    if find_browser() is None:
        yield no_browser()
