"""From a model state to a bundle for TensorRT, or with an engine of TensorRT for RTX inside, in the terms of edgeopt."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.errors import ExportError, Problem
from edgeopt.exporting import input_of
from edgeopt.plugin import ExportContext
from edgeopt.store import write_aside
from edgeopt.types import ExportResult, Json, ModelState, TensorInfo
from edgeopt_tensorrt import build_engine as script
from edgeopt_tensorrt.build_engine import (
    ENGINE_FILE,
    ONNX_FILE,
    SETTINGS_FILE,
    BuildError,
    Engine,
    EngineSettings,
    build_engine,
)
from edgeopt_tensorrt.bundle import BUILD_SCRIPT, BUILD_SHELL_SCRIPT, CARD_FILE, README_FILE, write_bundle
from edgeopt_tensorrt.engine_layers import read_layers
from edgeopt_tensorrt.gpu import can_run
from edgeopt_tensorrt.onnx_file import OnnxFile, write_onnx
from edgeopt_tensorrt.texts import build_shell_script, readme, rtx_readme

if TYPE_CHECKING:
    from edgeopt_tensorrt.plugin import TensorRtOptions, TensorRtRtxOptions

OUTPUT_NAME = "logits"
STAND_IN = "onnxruntime"


def export_bundle(state: ModelState, options: TensorRtOptions, context: ExportContext) -> ExportResult:
    """Writes a bundle to build on the device, with an engine inside where TensorRT and a GPU are here.

    Raises `ExportError` naming what TensorRT does not take.
    """
    batch = options.batch
    given, returned = _tensors(state, batch.min, batch.max)
    card = replace(context.card.with_tensors(given, returned), runtime="tensorrt").to_json()
    onnx_file = write_onnx(state, card, options.opset)
    settings = EngineSettings(
        given.name,
        _picture(given),
        batch.min,
        batch.opt,
        batch.max,
        int8=bool(onnx_file.quantized),
        workspace_mib=options.workspace_mib,
    )
    engine = _build_here(onnx_file, settings, options.timing_cache) if can_run("tensorrt") else None
    members = {
        **_members(onnx_file, card, settings, engine),
        BUILD_SCRIPT: Path(script.__file__).read_bytes(),
        BUILD_SHELL_SCRIPT: build_shell_script(settings).encode(),
        README_FILE: readme(settings, has_engine=engine is not None).encode(),
    }
    write_bundle(context.path, members)
    warnings = () if engine else (_no_engine_warning(),)
    return _result(given, returned, onnx_file, engine, warnings, verified_in="tensorrt" if engine else STAND_IN)


def export_rtx(state: ModelState, options: TensorRtRtxOptions, context: ExportContext) -> ExportResult:
    """Writes a bundle with an engine of TensorRT for RTX, built ahead of time: no GPU is needed for that, only for running it.

    Raises `ExportError` naming what TensorRT for RTX does not take.
    """
    given, returned = _tensors(state, options.batch, options.batch)
    card = replace(context.card.with_tensors(given, returned), runtime="tensorrt-rtx").to_json()
    onnx_file = write_onnx(state, card, options.opset)
    settings = EngineSettings(
        given.name,
        _picture(given),
        *[options.batch] * 3,
        int8=bool(onnx_file.quantized),
        compute_capabilities=options.compute_capabilities,
    )
    engine = _build("tensorrt_rtx", onnx_file, settings)
    members = {
        **_members(onnx_file, card, settings, engine),
        README_FILE: rtx_readme(settings).encode(),
    }
    write_bundle(context.path, members)
    found = read_layers(engine.plan, onnx_file.quantized)
    is_run = can_run("tensorrt_rtx")
    warnings = [] if is_run else [_not_run_warning()]
    facts: dict[str, Json] = {"compute_capabilities": list(options.compute_capabilities) or "Ampere and later"}
    if onnx_file.quantized and found.unknown:
        names = ", ".join(layer.module for layer in found.unknown)
        warnings.append(f"the engine does not say whether it runs these layers in int8: {names}")
    if len(found.unknown) < len(onnx_file.quantized):
        facts["layers_int8"] = len(found.int8)
    result = _result(given, returned, onnx_file, engine, warnings, verified_in="tensorrt-rtx" if is_run else STAND_IN)
    outside = tuple(f"{layer.module} (quantized, but not int8 in the engine)" for layer in found.in_float)
    return replace(result, outside=outside, facts={**result.facts, **facts})


def _tensors(state: ModelState, smallest: int, largest: int) -> tuple[TensorInfo, TensorInfo]:
    batch: int | str = largest if smallest == largest else "batch"
    return input_of(state, batch), TensorInfo(OUTPUT_NAME, "float32", (batch, len(state.classes)), "NC")


def _picture(given: TensorInfo) -> tuple[int, ...]:
    return tuple(size for size in given.shape[1:] if isinstance(size, int))


def _members(onnx_file: OnnxFile, card: str, settings: EngineSettings, engine: Engine | None) -> dict[str, bytes]:
    members = {ONNX_FILE: onnx_file.content, CARD_FILE: card.encode(), SETTINGS_FILE: settings.to_json().encode()}
    return members if engine is None else {**members, ENGINE_FILE: engine.plan}


def _build_here(onnx_file: OnnxFile, settings: EngineSettings, timing_cache: Path | None) -> Engine:
    """The engine for this machine's GPU; the timing cache is read and brought up to date."""
    known = timing_cache.read_bytes() if timing_cache and timing_cache.exists() else b""
    engine = _build("tensorrt", onnx_file, settings, known)
    if timing_cache:
        write_aside(timing_cache, engine.timing_cache)
    return engine


def _build(module: str, onnx_file: OnnxFile, settings: EngineSettings, timing_cache: bytes = b"") -> Engine:
    try:
        return build_engine(importlib.import_module(module), onnx_file.content, settings, timing_cache)
    except BuildError as error:
        name = module.replace("_", "-")
        hint = "choose another model, another opset, or leave this export out"
        raise ExportError(Problem(f"{name} cannot build the engine: {error}", hint)) from error


def _result(
    given: TensorInfo,
    returned: TensorInfo,
    onnx_file: OnnxFile,
    engine: Engine | None,
    warnings: list[str] | tuple[str, ...],
    verified_in: str,
) -> ExportResult:
    return ExportResult(
        input=given,
        output=returned,
        facts={
            "layers": len(onnx_file.layers),
            "layers_quantized": len(onnx_file.quantized),
            "onnx_bytes": len(onnx_file.content),
            "engine_bytes": len(engine.plan) if engine else None,
            "verified_in": verified_in,
        },
        warnings=(*warnings, *(engine.messages if engine else ())),
    )


def _no_engine_warning() -> str:
    return (
        "no engine was built: TensorRT or a GPU is not here. The bundle builds it on the device, with build.sh; "
        "accuracy is that of its ONNX file in ONNX Runtime, and the latency says nothing of TensorRT"
    )


def _not_run_warning() -> str:
    return (
        "the engine was built and not run: no GPU is here. Accuracy is that of the ONNX file it was built from, in ONNX "
        "Runtime, and the latency says nothing of TensorRT for RTX"
    )
