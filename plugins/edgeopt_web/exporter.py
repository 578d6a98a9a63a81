"""From a model state to a file of the browser: the files of the exporters `onnx` and `tflite`, opened in a page."""

from __future__ import annotations

from dataclasses import replace

from edgeopt.plugins import ExportContext, ExportResult, ModelState
from edgeopt_web.browser import require_browser
from edgeopt_web.costs import chosen_costs, costs_source
from edgeopt_web.options import LitertWebOptions, OnnxWebOptions
from edgeopt_web.packages import LITERT_CORE, ONNXRUNTIME_WEB, NpmPackage, package_files


def export_onnx_web(state: ModelState, options: OnnxWebOptions, context: ExportContext) -> ExportResult:
    """Writes an `.onnx` file to `context.path`.

    Raises `ExportError` as the exporter `onnx` does, and where there is no browser or the runtime cannot be had.
    """
    from edgeopt_onnx.exporter import write_state  # torch and onnx are heavy

    _require(ONNXRUNTIME_WEB)
    costs = chosen_costs(options.costs) if options.precision == "auto" else None
    written = write_state(state, options.as_onnx(), context, costs, costs_source(options.costs))
    return replace(written, facts={**written.facts, "runtime_package": str(ONNXRUNTIME_WEB)})


def export_litert_web(state: ModelState, options: LitertWebOptions, context: ExportContext) -> ExportResult:
    """Writes a `.tflite` file to `context.path`.

    Raises `ExportError` as the exporter `tflite` does, and where there is no browser or the runtime cannot be had.
    """
    from edgeopt_tflite.exporter import export_state  # litert-torch is heavy

    _require(LITERT_CORE)
    written = export_state(state, options.as_tflite(), context)
    return replace(written, facts={**written.facts, "runtime_package": str(LITERT_CORE)})


def _require(package: NpmPackage) -> None:
    """Before a file is made that could not be opened."""
    require_browser()
    package_files(package)
