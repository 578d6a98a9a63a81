"""The runtimes of the browser, put together from packages of npm and a module of ours each. Light."""

from __future__ import annotations

from pathlib import Path

from edgeopt.plugins import BrowserRuntime
from edgeopt_web.packages import LITERT_CORE, LITERT_WASM_UTILS, ONNXRUNTIME_WEB, NpmPackage, package_files

_OURS = Path(__file__).parent / "runtimes"


def onnx_web() -> BrowserRuntime:
    """ONNX Runtime Web: WebAssembly with SIMD and threads. Raises `ExportError` where its package cannot be had."""
    files = package_files(ONNXRUNTIME_WEB)
    return BrowserRuntime(
        "onnx_web.js",
        {
            "onnx_web.js": _OURS / "onnx_web.js",
            "ort.wasm.bundle.min.js": files["dist/ort.wasm.bundle.min.mjs"],
            "ort-wasm-simd-threaded.wasm": files["dist/ort-wasm-simd-threaded.wasm"],
        },
        _notice(ONNXRUNTIME_WEB),
    )


def litert_web() -> BrowserRuntime:
    """LiteRT.js: WebAssembly with XNNPACK. Raises `ExportError` where its packages cannot be had.

    Its module names the other package as bundlers look it up; a browser is told where the file is.
    """
    files, loader = package_files(LITERT_CORE), package_files(LITERT_WASM_UTILS)
    core = files["dist/index.js"].read_text(encoding="utf-8")
    named = core.replace('"@litertjs/wasm-utils"', '"./litert_wasm_utils.js"')
    wasm = {Path(name).name: path for name, path in files.items() if name.startswith("wasm/")}
    return BrowserRuntime(
        "litert_web.js",
        {
            "litert_web.js": _OURS / "litert_web.js",
            "litert_core.js": named.encode(),
            "litert_wasm_utils.js": loader["dist/index.js"],
            **wasm,
        },
        _notice(LITERT_CORE, LITERT_WASM_UTILS),
    )


def _notice(*packages: NpmPackage) -> str:
    return "\n".join(f"{package}: {package.licence}" for package in packages)
