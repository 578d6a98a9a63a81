"""Declares the exporters `onnx-web` and `litert-web`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeopt.export.predictor import damaged_explained
from edgeopt.plugins import (
    BrowserRuntime,
    ExportContext,
    ExporterPlugin,
    ExportResult,
    ModelState,
    Predictor,
    hookimpl,
    without_conversion,
)
from edgeopt_onnx.options import NO_INT16
from edgeopt_web.costs import costs_fingerprint
from edgeopt_web.options import (
    LitertWebOptions,
    OnnxWebOptions,
    check_litert_web,
    check_onnx_web,
    float_onnx_web,
    for_batch,
)
from edgeopt_web.runtime import litert_web, onnx_web


def export_onnx(state: ModelState, options: OnnxWebOptions, context: ExportContext) -> ExportResult:
    """Writes an `.onnx` file; see `edgeopt_web.exporter`."""
    from edgeopt_web.exporter import export_onnx_web  # torch and onnx are heavy

    return export_onnx_web(state, options, context)


def export_litert(state: ModelState, options: LitertWebOptions, context: ExportContext) -> ExportResult:
    """Writes a `.tflite` file; see `edgeopt_web.exporter`."""
    from edgeopt_web.exporter import export_litert_web  # litert-torch is heavy

    return export_litert_web(state, options, context)


def open_onnx(path: Path, threads: int) -> Predictor:
    """Opens an `.onnx` file in a page, in ONNX Runtime Web."""
    return _opened(path, onnx_web(), threads)


def open_litert(path: Path, threads: int) -> Predictor:
    """Opens a `.tflite` file in a page, in LiteRT.js."""
    return _opened(path, litert_web(), threads)


def _opened(path: Path, runtime: BrowserRuntime, threads: int) -> Predictor:
    from edgeopt_web.predictor import WebPredictor  # numpy is heavy

    with damaged_explained():
        return WebPredictor(path, runtime, threads=threads)


def fingerprint(options: OnnxWebOptions) -> str:
    """What the costs are that precision "auto" chooses by, "" for any other; raises `UserError` for wrong ones."""
    return costs_fingerprint(options.costs) if options.precision == "auto" else ""


@hookimpl
def edgeopt_exporters() -> Iterator[ExporterPlugin]:
    """The exporters of this package."""
    yield ExporterPlugin(
        "onnx-web",
        "An .onnx file for web pages, opened and measured in headless Chromium.",
        OnnxWebOptions,
        export=export_onnx,
        open=open_onnx,
        runtime="onnxruntime-web",
        suffix=".onnx",
        baseline=float_onnx_web,
        check=check_onnx_web,
        for_batch=for_batch,
        fingerprint=fingerprint,
        runtime_modules=("edgeopt_web.predictor",),
        requires=("onnx", "onnx-ir", "onnxscript", "onnxruntime", "networkx"),
        libraries=("edgeopt_onnx", "edgeopt_tflite"),
        install="edgeopt[web]",
        browser=onnx_web,
        no_int16=NO_INT16,
    )
    yield ExporterPlugin(
        "litert-web",
        "A .tflite file for web pages, opened and measured in headless Chromium.",
        LitertWebOptions,
        export=export_litert,
        open=open_litert,
        runtime="litert-js",
        suffix=".tflite",
        baseline=without_conversion,
        check=check_litert_web,
        runtime_modules=("edgeopt_web.predictor",),
        requires=("litert-torch", "ai-edge-litert", "ai-edge-quantizer"),
        libraries=("edgeopt_onnx", "edgeopt_tflite"),
        install="edgeopt[web]",
        browser=litert_web,
        no_int16="has XNNPACK's integers, which are of 8 bits",
    )
