"""Builds a TensorRT engine from an ONNX file. This file goes into every bundle and needs nothing but `tensorrt` on the
device.

    python3 build_engine.py            # in the unpacked bundle: reads build.json and model.onnx, writes model.engine

edgeopt itself builds with it too, and TensorRT for RTX has the same interface: each function takes the module to build
with. It is written for Python 3.8, TensorRT 8.5 and what came after; an engine fits one kind of GPU and one version of
TensorRT.
"""

# ruff: noqa: T201 - a program for the command line

from __future__ import annotations

import argparse
import importlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ONNX_FILE = "model.onnx"
ENGINE_FILE = "model.engine"
SETTINGS_FILE = "build.json"
TIMING_CACHE_FILE = "timing.cache"


class BuildError(RuntimeError):
    """TensorRT refuses the file or cannot build it; the message is TensorRT's own."""


@dataclass(frozen=True)
class EngineSettings:
    """What to build: `shape` is that of one image, and `batch_min` to `batch_max` the batches that the engine takes.

    `batch_opt` is the one that it is tuned for; with `fixed_shapes` the file itself takes no other batch than
    `batch_max`. `float16` and `int8` say which types the ONNX file has besides float32. `compute_capabilities`, such as
    "8.6", are for TensorRT for RTX alone, which builds for GPUs that are not here.
    """

    input: str
    shape: tuple[int, ...]
    batch_min: int = 1
    batch_opt: int = 1
    batch_max: int = 1
    fixed_shapes: bool = False
    float16: bool = False
    int8: bool = False
    workspace_mib: int | None = None
    compute_capabilities: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The settings as stable, indented text."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @staticmethod
    def from_json(text: str) -> EngineSettings:
        """What `to_json` wrote."""
        values = json.loads(text)
        for name in ("shape", "compute_capabilities"):
            values[name] = tuple(values[name])
        return EngineSettings(**values)

    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The smallest, the tuned and the largest shape of the input."""
        return tuple((batch, *self.shape) for batch in (self.batch_min, self.batch_opt, self.batch_max))


@dataclass(frozen=True)
class Engine:
    """A built engine; `timing_cache` makes the next build of a like network quicker, and `messages` are TensorRT's
    warnings.
    """

    plan: bytes
    timing_cache: bytes
    messages: tuple[str, ...]


def build_engine(tensorrt: Any, onnx_file: bytes, settings: EngineSettings, timing_cache: bytes = b"") -> Engine:
    """Builds with the module `tensorrt`, or `tensorrt_rtx`.

    Raises `BuildError` with what its parser or builder says.
    """
    messages: list[str] = []
    logger = _logger(tensorrt, messages)
    tensorrt.init_libnvinfer_plugins(None, "")  # its own operators; of a logger it would keep the bare address
    builder = tensorrt.Builder(logger)
    network = builder.create_network(_network_flags(tensorrt))
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(onnx_file):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        raise BuildError("; ".join(f"{error.node_name() or 'the file'}: {error.desc()}" for error in errors))
    config = builder.create_builder_config()
    if not settings.fixed_shapes:
        profile = builder.create_optimization_profile()
        profile.set_shape(settings.input, *settings.shapes())
        if config.add_optimization_profile(profile) < 0:
            raise BuildError(f"the batches {settings.shapes()} do not fit the file: {'; '.join(messages)}")
    _set_types(tensorrt, config, settings)
    _set_compute_capabilities(tensorrt, config, settings.compute_capabilities)
    if settings.workspace_mib is not None:
        config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, settings.workspace_mib << 20)
    if not config.set_timing_cache(config.create_timing_cache(timing_cache), ignore_mismatch=False):
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)  # of another device
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError("; ".join(messages) or "TensorRT gave no reason")
    return Engine(bytes(plan), bytes(config.get_timing_cache().serialize()), tuple(messages))


def _logger(tensorrt: Any, messages: list[str]) -> Any:
    class Logger(tensorrt.ILogger):  # type: ignore[misc]  # TensorRT ships no types
        """Keeps warnings and errors."""

        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity <= tensorrt.ILogger.Severity.WARNING:
                messages.append(message.strip())

    return Logger()


def _network_flags(tensorrt: Any) -> int:
    """Batches in the shapes, types as the file has them: always so in TensorRT 11, asked for before."""
    known = tensorrt.NetworkDefinitionCreationFlag
    return sum(1 << int(getattr(known, name)) for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED") if hasattr(known, name))


def _set_types(tensorrt: Any, config: Any, settings: EngineSettings) -> None:
    """Allows what TensorRT 8 uses only when told to; from 10 on the file itself says it."""
    if hasattr(tensorrt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        return
    if settings.int8:
        config.set_flag(tensorrt.BuilderFlag.INT8)
    if settings.float16:
        config.set_flag(tensorrt.BuilderFlag.FP16)


def _set_compute_capabilities(tensorrt: Any, config: Any, capabilities: tuple[str, ...]) -> None:
    if not capabilities:
        return
    config.num_compute_capabilities = len(capabilities)
    for index, capability in enumerate(capabilities):
        known = getattr(tensorrt.ComputeCapability, f"SM{capability.replace('.', '')}", None)
        if known is None or not config.set_compute_capability(known, index):
            raise BuildError(f"this version cannot build for compute capability {capability}")


def main(arguments: list[str] | None = None) -> int:
    """Builds the bundle that this file lies in; returns the exit status."""
    parser = argparse.ArgumentParser(
        description="Build the TensorRT engine of this bundle, on the device that will run it."
    )
    parser.add_argument("--folder", type=Path, default=Path(__file__).resolve().parent, help="the unpacked bundle")
    parser.add_argument("--module", default="tensorrt", help="tensorrt, or tensorrt_rtx")
    given = parser.parse_args(arguments)
    try:
        tensorrt = importlib.import_module(given.module)
    except ImportError:
        print(f"{given.module} is not installed: JetPack brings it, and NVIDIA's index has it for pip", file=sys.stderr)
        return 2
    folder = given.folder
    settings = EngineSettings.from_json((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    cache = folder / TIMING_CACHE_FILE
    try:
        engine = build_engine(
            tensorrt, (folder / ONNX_FILE).read_bytes(), settings, cache.read_bytes() if cache.exists() else b""
        )
    except BuildError as error:
        print(f"TensorRT cannot build {ONNX_FILE}: {error}", file=sys.stderr)
        return 1
    (folder / ENGINE_FILE).write_bytes(engine.plan)
    cache.write_bytes(engine.timing_cache)
    for message in engine.messages:
        print(message, file=sys.stderr)
    print(f"{folder / ENGINE_FILE}: {len(engine.plan)} bytes, for this GPU and TensorRT {tensorrt.__version__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
