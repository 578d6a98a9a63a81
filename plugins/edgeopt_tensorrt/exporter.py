"""From a model state to a bundle, for TensorRT or with an engine of TensorRT for RTX, in the terms of edgeopt."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.export.predictor import input_of
from edgeopt.files import write_aside
from edgeopt.plugins import (
    ExportContext,
    ExportError,
    ExportResult,
    Json,
    ModelState,
    OnnxTail,
    Problem,
    TensorInfo,
)
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
from edgeopt_tensorrt.bundle import BUILD_SCRIPT, BUILD_SHELL_SCRIPT, CARD_FILE, PLUGIN, README_FILE, write_bundle
from edgeopt_tensorrt.bundle_texts import build_shell_script, readme, rtx_readme
from edgeopt_tensorrt.engine_layers import read_layers
from edgeopt_tensorrt.gpu import can_run
from edgeopt_tensorrt.onnx_file import OnnxFile, outputs_with, read_onnx, write_onnx

if TYPE_CHECKING:
    from edgeopt_tensorrt.options import (
        BundleOptions,
        OnnxTensorRtOptions,
        OnnxTensorRtRtxOptions,
        ProgramOptions,
        RtxOptions,
        TensorRtOptions,
        TensorRtRtxOptions,
    )

_STAND_IN = "onnxruntime"
_NOT_BUILT = "no engine was built, because TensorRT or a GPU is not here: run build.sh of the bundle on the device"
_NO_STAND_IN = f"{_NOT_BUILT}; its {PLUGIN} is TensorRT's alone, so that no other runtime answers in its place"


@dataclass(frozen=True)
class _Source:
    """What goes into a bundle before an engine is built.

    The card, the input and the outputs are those that the engine will have.
    """

    file: OnnxFile
    card: str
    input: TensorInfo
    outputs: tuple[TensorInfo, ...]
    float16: bool = False

    @property
    def members(self) -> dict[str, bytes]:
        return {ONNX_FILE: self.file.content, CARD_FILE: self.card.encode()}

    def settings(self, batch_min: int, batch_opt: int, batch_max: int) -> EngineSettings:
        return EngineSettings(
            self.input.name,
            tuple(size for size in self.input.shape[1:] if isinstance(size, int)),
            batch_min,
            batch_opt,
            batch_max,
            fixed_shapes=isinstance(self.file.input.shape[0], int),
            float16=self.float16,
            int8=bool(self.file.quantized),
        )


def export_bundle(state: ModelState, options: TensorRtOptions, context: ExportContext) -> ExportResult:
    """Writes a bundle to build on the device, with an engine inside where TensorRT and a GPU are here.

    Raises `ExportError` naming what TensorRT does not take.
    """
    source = _from_program(state, options, context, (options.batch.min, options.batch.max))
    return replace(_bundle(source, options, context), precision=_converted(options))


def export_rtx(state: ModelState, options: TensorRtRtxOptions, context: ExportContext) -> ExportResult:
    """Writes a bundle with an engine of TensorRT for RTX, built ahead of time.

    Building needs no GPU, only running does.

    Raises `ExportError` naming what TensorRT for RTX does not take.
    """
    source = _from_program(state, options, context, (options.batch, options.batch))
    return replace(_rtx_bundle(source, options, context), precision=_converted(options))


def convert_bundle(state: ModelState, options: OnnxTensorRtOptions, context: ExportContext) -> ExportResult:
    """`export_bundle` for a state of the framework "onnx", whose file goes into the bundle as it is."""
    batch = options.batch
    return _bundle(_from_onnx(state, context, (batch.min, batch.max)), options, context)


def convert_rtx(state: ModelState, options: OnnxTensorRtRtxOptions, context: ExportContext) -> ExportResult:
    """`export_rtx` for a state of the framework "onnx", whose file goes into the bundle as it is."""
    return _rtx_bundle(_from_onnx(state, context, (options.batch, options.batch)), options, context)


def _from_program(
    state: ModelState, options: ProgramOptions, context: ExportContext, batches: tuple[int, int]
) -> _Source:
    given = _of_batch(input_of(state, "batch"), batches)
    tail = context.tail if isinstance(context.tail, OnnxTail) else None
    returned = tuple(_of_batch(each, batches) for each in outputs_with(state, tail))
    card = replace(context.card, precision=_converted(options) or state.precision)
    card_json = card.with_tensors(given, returned).to_json()
    file = write_onnx(state, card_json, options.opset, options.precision, tail)
    return _Source(file, card_json, given, returned, options.precision == "float16")


def _from_onnx(state: ModelState, context: ExportContext, batches: tuple[int, int]) -> _Source:
    file = read_onnx(state)
    if file.input.shape[0] == 1 and batches != (1, 1):
        raise ExportError(Problem("the ONNX file takes one image in a call, and no larger batch", option="batch"))
    given, returned = _of_batch(file.input, batches), tuple(_of_batch(each, batches) for each in file.outputs)
    return _Source(file, context.card.with_tensors(given, returned).to_json(), given, returned)


def _of_batch(info: TensorInfo, batches: tuple[int, int]) -> TensorInfo:
    """`info` for an engine that takes batches from the smallest to the largest."""
    smallest, largest = batches
    return replace(info, shape=(largest if smallest == largest else "batch", *info.shape[1:]))


def _converted(options: ProgramOptions) -> str:
    """The file's precision where it is not the program's."""
    return "" if options.precision == "program" else options.precision


def _bundle(source: _Source, options: BundleOptions, context: ExportContext) -> ExportResult:
    batch = options.batch
    settings = replace(source.settings(batch.min, batch.opt, batch.max), workspace_mib=options.workspace_mib)
    engine = _build_here(source.file, settings, options.timing_cache) if can_run("tensorrt") else None
    members = {
        **source.members,
        SETTINGS_FILE: settings.to_json().encode(),
        BUILD_SCRIPT: Path(script.__file__).read_bytes(),
        BUILD_SHELL_SCRIPT: build_shell_script(settings).encode(),
        README_FILE: readme(settings, has_engine=engine is not None).encode(),
    }
    if engine:
        members[ENGINE_FILE] = engine.plan
    write_bundle(context.path, members)
    is_said = engine is not None or source.file.needs_plugin  # there, the report's row says why it was not run
    return _result(source, engine, () if is_said else (_NOT_BUILT,), is_run=engine is not None)


def _rtx_bundle(source: _Source, options: RtxOptions, context: ExportContext) -> ExportResult:
    capabilities = options.compute_capabilities
    settings = replace(source.settings(*[options.batch] * 3), compute_capabilities=capabilities)
    engine = _build("tensorrt_rtx", source.file, settings)
    members = {
        **source.members,
        SETTINGS_FILE: settings.to_json().encode(),
        README_FILE: rtx_readme(settings).encode(),
        ENGINE_FILE: engine.plan,
    }
    write_bundle(context.path, members)
    warnings = []
    facts: dict[str, Json] = {"compute_capabilities": list(capabilities) or "8.0 and later"}
    found = read_layers(engine.plan, source.file.quantized)
    if found.unknown:
        names = ", ".join(layer.module for layer in found.unknown)
        warnings.append(f"fused into a larger kernel, whose arithmetic the engine does not tell: {names}")
    if found.int8 or found.in_float:
        facts["layers_int8"] = len(found.int8)
    result = _result(source, engine, tuple(warnings), is_run=can_run("tensorrt_rtx"))
    outside = tuple(f"{layer.module} (quantized, and float in the engine)" for layer in found.in_float)
    return replace(result, outside=outside, facts={**result.facts, **facts})


def _build_here(file: OnnxFile, settings: EngineSettings, timing_cache: Path | None) -> Engine:
    """The engine for this machine's GPU; the timing cache is read and brought up to date."""
    known = timing_cache.read_bytes() if timing_cache and timing_cache.exists() else b""
    engine = _build("tensorrt", file, settings, known)
    if timing_cache:
        write_aside(timing_cache, engine.timing_cache)
    return engine


def _build(module: str, file: OnnxFile, settings: EngineSettings, timing_cache: bytes = b"") -> Engine:
    try:
        return build_engine(importlib.import_module(module), file.content, settings, timing_cache)
    except BuildError as error:
        name = module.replace("_", "-")
        hint = "choose another model, another opset, or leave this export out"
        raise ExportError(Problem(f"{name} cannot build the engine: {error}", hint)) from error


def _result(source: _Source, engine: Engine | None, warnings: tuple[str, ...], *, is_run: bool) -> ExportResult:
    return ExportResult(
        input=source.input,
        outputs=source.outputs,
        facts={
            "layers": len(source.file.layers),
            "layers_quantized": len(source.file.quantized),
            "onnx_bytes": len(source.file.content),
            "engine_bytes": len(engine.plan) if engine else None,
        },
        warnings=(*warnings, *(engine.messages if engine else ())),
        not_run="" if is_run or not source.file.needs_plugin else _NO_STAND_IN,
        stand_in="" if is_run or source.file.needs_plugin else _STAND_IN,
    )
