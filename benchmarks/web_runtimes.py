"""What files cost in the browser: float, int8 and "auto" files of both runtimes at 224 px, with one thread and with two.

    python benchmarks/web_runtimes.py [ARCH...]

Networks of random weights. Files are open in a headless Chromium each and take turns; times are by the page's own clock.
Ends with a table (the fastest call of each file), and the bars: with one thread, of which its costs are, what precision
"auto" of `onnx-web` chooses is as fast as the faster of float and int8.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from bars import Bar, finish
from runtimes import SIZE, _images, _states
from untrained import untrained

from edgeopt.plugins import ExporterPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve
from edgeopt.testing.exporter import export_file
from edgeopt_web.predictor import WebPredictor

ARCHS = ("mobilenet_v2", "mobilenet_v3_small", "resnet18")
FILES = (
    ("onnx-web", "float", {}),
    ("onnx-web", "int8", {}),
    ("onnx-web", "auto", {"precision": "auto"}),
    ("litert-web", "float", {}),
    ("litert-web", "int8", {}),
)
ROUNDS, CALLS = 8, 8
AUTO_LIMIT = 1.1
_WARM = 30  # calls until a browser has compiled what is called often


@dataclass(frozen=True)
class Timed:
    """A file's fastest call and the time until it was open, ms."""

    arch: str
    exporter: str
    form: str
    threads: int
    fastest_ms: float
    load_ms: float


def time_files(arch: str, threads: int, folder: Path) -> list[Timed]:
    """Every file of a network, in turns."""
    registry = load_registry()
    with ExitStack() as opened:
        files: dict[tuple[str, str], WebPredictor] = {}
        for exporter, form, _ in FILES:
            predictor = registry.get(ExporterPlugin, exporter).open(folder / f"{exporter}-{form}", threads)
            assert isinstance(predictor, WebPredictor)
            files[exporter, form] = opened.enter_context(predictor)
        batch = _images()[0][:1]
        best = dict.fromkeys(files, np.inf)
        for turn in range(ROUNDS + 1):
            for key, predictor in files.items():
                for _ in range(CALLS if turn else _WARM):
                    predictor.predict(batch)
                    best[key] = min(best[key], predictor.call_ms) if turn else np.inf
        return [Timed(arch, *key, threads, best[key], files[key].load_ms) for key in files]


def make_files(arch: str, folder: Path) -> None:
    """Writes every file of a network."""
    registry = load_registry()
    torch.set_num_threads(2)
    module = untrained(arch, map(torch.from_numpy, _images(count=6, seed=1)))
    states = _states(module, _images())
    for exporter, form, options in FILES:
        use = resolve(ExporterPlugin, exporter, options, registry)
        with tempfile.TemporaryDirectory() as aside:
            made, _ = export_file(use, states["float" if form == "float" else "int8"], Path(aside))
            (folder / f"{exporter}-{form}").write_bytes(made.read_bytes())


def measure(archs: tuple[str, ...]) -> list[Bar]:
    """Prints the table; the bars."""
    found: list[Timed] = []
    counts = (1, 2) if (os.cpu_count() or 1) > 1 else (1,)
    for arch in archs:
        with tempfile.TemporaryDirectory() as folder:
            make_files(arch, Path(folder))
            for threads in counts:
                found += time_files(arch, threads, Path(folder))
    print(f"{'network':20}{'file':20}{'threads':>8}{'ms':>9}{'float/it':>10}{'load ms':>9}")
    times = {(each.arch, each.exporter, each.form, each.threads): each.fastest_ms for each in found}
    for each in found:
        ratio = times[each.arch, each.exporter, "float", each.threads] / each.fastest_ms
        name = f"{each.exporter} {each.form}"
        print(f"{each.arch:20}{name:20}{each.threads:8}{each.fastest_ms:9.1f}{ratio:10.2f}{each.load_ms:9.0f}")
    bars = []
    for arch in archs:
        one = {form: times[arch, "onnx-web", form, 1] for form in ("float", "int8", "auto")}
        better = min(one["float"], one["int8"])
        bars.append(
            Bar(f"{arch} in ONNX Runtime Web, auto / the faster of float and int8", one["auto"] / better, AUTO_LIMIT)
        )
    return bars


if __name__ == "__main__":
    assert SIZE == 224
    finish(*measure(tuple(sys.argv[1:]) or ARCHS))
