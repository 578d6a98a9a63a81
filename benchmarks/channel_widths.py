"""What a channel costs at different widths: depthwise blocks of each width in int8, in each runtime.

Kernels take channels in blocks, so that a few channels less may be slower: `round_to` of the pruning passes is chosen
by this. The figures are the fastest of many calls, in turns, with one thread; each is divided by the channels, and by
that of the widest network.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from stripes import CLASSES, stripes
from torch import Tensor, nn

from edgeopt.networks.tracing import quick_tracing
from edgeopt.plugins.declarations import ExporterPlugin, PassPlugin, Predictor
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve
from edgeopt.tasks import TASKS
from edgeopt.testing import pass_context
from edgeopt.testing.exporter import export_file
from edgeopt.types import Form, ModelState, TrainingData

RUNTIMES = {"executorch": "ExecuTorch", "onnx": "ONNX Runtime", "tflite": "LiteRT"}
WIDTHS = (24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120, 128)
BLOCKS, SIZE = 6, 32
ROUNDS, CALLS = 8, 15


def network(width: int) -> nn.Module:
    """Depthwise convolutions of `width` channels, after a convolution that makes as many."""

    def depthwise() -> list[nn.Module]:
        return [nn.Conv2d(width, width, 3, padding=1, groups=width), nn.BatchNorm2d(width), nn.ReLU6()]

    blocks = [layer for _ in range(BLOCKS) for layer in depthwise()]
    return nn.Sequential(
        nn.Conv2d(3, width, 1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES)
    )


def int8_files(width: int, data: TrainingData, folder: Path) -> dict[str, Predictor]:
    """The int8 network of this width in each runtime, opened."""
    torch.manual_seed(0)
    registry = load_registry()
    module = network(width).eval()
    state = ModelState(module, Form.MODULE, TASKS["classification"], data.classes, data.preprocessing)
    quantize = resolve(PassPlugin, "ptq", {"batch_size": 8}, registry)
    (folder / "ptq").mkdir(parents=True)
    program = quantize.plugin.apply(state, quantize.options, pass_context(folder / "ptq", data))
    files = {}
    for runtime in RUNTIMES:
        use = resolve(ExporterPlugin, runtime, {}, registry)
        (aside := folder / runtime).mkdir()
        files[runtime] = use.plugin.open(export_file(use, program, aside)[0], 1)
    return files


def best_ms(files: Sequence[Predictor], image: Tensor) -> list[float]:
    """The fastest call of each."""
    batch = image.numpy()
    best = [float("inf")] * len(files)
    for _ in range(ROUNDS):
        for index, predictor in enumerate(files):
            for _ in range(CALLS):
                start = time.perf_counter()
                predictor.predict(batch)
                best[index] = min(best[index], (time.perf_counter() - start) * 1e3)
    return best


def main() -> None:
    """Makes the files of every width and shows what a channel costs in each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", nargs="+", type=int, default=list(WIDTHS))
    given = parser.parse_args()
    data = stripes((16, 16, 16), SIZE)
    table = Table("channels", *(f"{shown}, ms" for shown in RUNTIMES.values()), *RUNTIMES.values())
    with tempfile.TemporaryDirectory() as folder, quick_tracing():
        files = {
            width: int8_files(width, data, Path(folder) / str(width))
            for width in track(given.widths, "files", console=Console(stderr=True))
        }
        image = torch.zeros(1, 3, SIZE, SIZE)
        times = {
            runtime: dict(zip(files, best_ms([each[runtime] for each in files.values()], image), strict=True))
            for runtime in RUNTIMES
        }
    widest = max(given.widths)
    for width in given.widths:
        each = [times[runtime][width] for runtime in RUNTIMES]
        shares = [times[runtime][width] / width / (times[runtime][widest] / widest) for runtime in RUNTIMES]
        table.add_row(str(width), *(f"{ms:.3f}" for ms in each), *(f"{share:.2f}" for share in shares))
    console = Console(width=110)
    console.print(table)
    console.print("the last three columns: time of a channel, with that of the widest network for 1")


if __name__ == "__main__":
    main()
