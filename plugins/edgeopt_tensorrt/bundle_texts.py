"""The texts that go into a bundle."""

from __future__ import annotations

from edgeopt_tensorrt.build_engine import ENGINE_FILE, ONNX_FILE, SETTINGS_FILE, TIMING_CACHE_FILE, EngineSettings
from edgeopt_tensorrt.bundle import BUILD_SCRIPT, CARD_FILE


def trtexec_options(settings: EngineSettings) -> str:
    """The options of TensorRT's own command line that build the same engine, on one line."""
    smallest, tuned, largest = ("x".join(map(str, shape)) for shape in settings.shapes())
    options = [f"--onnx={ONNX_FILE}", f"--saveEngine={ENGINE_FILE}", f"--timingCacheFile={TIMING_CACHE_FILE}"]
    if not settings.fixed_shapes:  # trtexec takes shapes for files that leave them open only
        shapes = {"min": smallest, "opt": tuned, "max": largest}
        options += [f"--{name}Shapes={settings.input}:{shape}" for name, shape in shapes.items()]
    if settings.workspace_mib is not None:
        options.append(f"--memPoolSize=workspace:{settings.workspace_mib}")
    return " ".join(options)


def build_shell_script(settings: EngineSettings) -> str:
    """`build.sh`: Python's TensorRT where it is installed, `trtexec` otherwise."""
    older = " ".join(flag for flag, wanted in (("--int8", settings.int8), ("--fp16", settings.float16)) if wanted)
    return f"""\
#!/bin/sh
# Builds {ENGINE_FILE} from {ONNX_FILE}. Run it on the device that will run the engine.
set -eu
cd "$(dirname "$0")"
if python3 -c 'import tensorrt' 2>/dev/null; then
    exec python3 {BUILD_SCRIPT}
fi
trtexec=$(command -v trtexec || echo /usr/src/tensorrt/bin/trtexec)  # where JetPack puts it
if [ ! -x "$trtexec" ]; then
    echo "TensorRT is not here: install JetPack's package, or tensorrt from NVIDIA's index for pip" >&2
    exit 2
fi
types=--stronglyTyped
"$trtexec" --help 2>/dev/null | grep -q stronglyTyped || types="{older}"  # TensorRT 8 must be told
# shellcheck disable=SC2086
exec "$trtexec" {trtexec_options(settings)} $types
"""


def readme(settings: EngineSettings, *, has_engine: bool) -> str:
    """`README.txt` of a bundle for TensorRT."""
    state = (
        f"{ENGINE_FILE} was built where this bundle was made, and fits that kind of GPU and version of TensorRT only.\n"
        f"For another device, build it there:"
        if has_engine
        else "There is no engine in here yet, because one must be built on the device that runs it:"
    )
    batches = f"batches from {settings.batch_min} to {settings.batch_max}, tuned for {settings.batch_opt}"
    return f"""\
A network for TensorRT
======================

{state}

    sh build.sh

or with TensorRT's own command line, which measures the engine as well:

    trtexec {trtexec_options(settings)} --stronglyTyped

Each takes from some seconds to some minutes, and writes {ENGINE_FILE}. TensorRT comes with JetPack; elsewhere
`pip install tensorrt` finds it on NVIDIA's own index.

{ONNX_FILE:<16} the network; its int8 layers are the Q/DQ nodes, and the engine keeps the file's types
{CARD_FILE:<16} classes, preprocessing, input and output
{SETTINGS_FILE:<16} what to build: {batches}
{BUILD_SCRIPT:<16} builds with Python; needs nothing but tensorrt
{TIMING_CACHE_FILE:<16} appears after the first build, and makes the next one quicker
"""


def rtx_readme(settings: EngineSettings) -> str:
    """`README.txt` of a bundle with an engine of TensorRT for RTX."""
    kinds = ", ".join(settings.compute_capabilities) or "8.0 and later"
    return f"""\
A network for TensorRT for RTX
==============================

{ENGINE_FILE:<16} built ahead of time, for GPUs of compute capability {kinds}; \
takes {settings.batch_max} image(s) in a call
{ONNX_FILE:<16} what it was built from
{CARD_FILE:<16} classes, preprocessing, input and output
{SETTINGS_FILE:<16} what was built

The engine runs with the version of TensorRT for RTX that {CARD_FILE} names (`pip install tensorrt-rtx`), which finishes
compiling it for the GPU at hand when it is first run.
"""
