"""What `edgeopt sensitivity` saves: its scan against running the whole validation split from the network's start for
each layer and level, on the same trained network and the same images.

Both change the same layers in the same way. The plain way runs the captured program, with all threads; the scan starts
at the layer that changed, stops where the verdict is certain, and runs layers side by side. Their recommendations must
be the same.

    python benchmarks/sensitivity.py
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from bars import Bar, finish
from rich.console import Console
from rich.table import Table
from stripes import stripes

from edgeopt.cores import usable_cores
from edgeopt.networks.capture import to_program
from edgeopt.plugins import ModelPlugin, PassPlugin, ProbePlugin, TrainerSettings
from edgeopt.plugins.contexts import PassContext
from edgeopt.plugins.registry import load_registry
from edgeopt.progress import Silent
from edgeopt.recipe.lookup import resolve
from edgeopt.sensitivity.network import Network
from edgeopt.sensitivity.scan import ScannedImages, ScanSettings, scan
from edgeopt.sensitivity.table import Scan
from edgeopt.types import ModelState, TrainingData

T = TypeVar("T")

LEAST_FACTOR = 4.0
BATCH_SIZE = 32
SEED = 17
CALIBRATION, TRAIN, VALIDATION = 64, 3000, 6000  # images
TURN = 0.18  # radians; three images in a hundred are nearer to another kind


@dataclass(frozen=True)
class Experiment:
    """A network, and what its layers are tried with."""

    arch: str
    image_size: int
    probe: str
    epochs: int
    learning_rate: float


EXPERIMENTS = (
    Experiment("resnet18", 32, "sparsity", 3, 2e-3),
    Experiment("mobilenet_v3_small", 64, "bits", 4, 3e-3),
)


def trained(experiment: Experiment, threads: int, folder: Path) -> tuple[ModelState, TrainingData]:
    """The network, trained on generated images that no network tells apart without mistakes."""
    registry = load_registry()
    data = stripes((CALIBRATION, TRAIN, VALIDATION), experiment.image_size, turn=TURN, colour_tells=False)
    torch.manual_seed(SEED)
    model = resolve(ModelPlugin, "torchvision", {"arch": experiment.arch}, registry)
    settings = {"epochs": experiment.epochs, "learning_rate": experiment.learning_rate, "schedule": "one-cycle"}
    train = resolve(PassPlugin, "train", settings, registry)
    context = PassContext(data, TrainerSettings(threads=threads), SEED, folder, Silent())
    return train.plugin.apply(model.plugin.build(model.options, data), train.options, context), data


def whole_runs(
    data: TrainingData, network: Network, changes: Mapping[tuple[str, float], object]
) -> dict[tuple[str, float], float]:
    """The drop of accuracy for each layer and level, each from its own run of the whole split from the start."""
    split, labels = data.validation, np.asarray(data.validation.labels)

    def batches() -> Iterator[torch.Tensor]:
        for start in range(0, len(split), BATCH_SIZE):
            pixels = split.pixels(range(start, min(start + BATCH_SIZE, len(split))))
            yield torch.from_numpy(data.preprocessing.normalize(pixels))

    def accuracy(changed: Mapping[str, object]) -> float:
        answers = np.concatenate([network.outputs(batch, changed)[0].argmax(1).numpy() for batch in batches()])
        return float((answers == labels).mean())

    with torch.inference_mode():
        before = accuracy({})
        return {key: before - accuracy({key[0]: change}) for key, change in changes.items()}


def recommended(drops: Mapping[tuple[str, float], float], levels: Sequence[float], untouched: float, threshold: float):
    """The harshest level of each layer whose drop is not above the threshold."""
    chosen = {}
    for layer in dict.fromkeys(layer for layer, _ in drops):
        passing = [level for level in levels if drops[layer, level] <= threshold + 1e-9]
        chosen[layer] = passing[-1] if passing else untouched
    return chosen


@dataclass(frozen=True)
class Seconds:
    """What something took: on the clock, and on all processors together, which other work on the
    machine changes less.
    """

    clock: float
    processors: float

    def __str__(self) -> str:
        return f"{self.clock:.1f} ({self.processors:.1f})"


def timed(work: Callable[[], T]) -> tuple[T, Seconds]:
    clock, processors = time.perf_counter(), time.process_time()
    result = work()
    return result, Seconds(time.perf_counter() - clock, time.process_time() - processors)


@dataclass(frozen=True)
class Outcome:
    """Seconds of both ways on the clock and on all processors, and in how many layers they differ."""

    layers: int
    runs: int
    plain: Seconds
    scan: Seconds
    share_of_images: float
    differences: int


def compare(experiment: Experiment, threads: int, folder: Path) -> Outcome:
    torch.set_num_threads(threads)
    state, data = trained(experiment, threads, folder)
    use = resolve(ProbePlugin, experiment.probe, {}, load_registry())
    network = Network(to_program(state, data.validation).program)
    normalize, calibration = data.preprocessing.normalize, data.calibration
    batch = torch.from_numpy(normalize(calibration.pixels(slice(None))))
    probe = use.plugin.prepare(network, lambda: [batch], use.options)
    levels = use.plugin.levels.default
    changes = {(layer, level): probe.change(layer, level) for layer in probe.layers for level in levels}
    settings = ScanSettings(batch_size=BATCH_SIZE, workers=threads, seed=SEED)

    def plain() -> dict[str, float]:
        drops = whole_runs(data, network, changes)
        return recommended(drops, levels, use.plugin.levels.untouched, settings.threshold or 0.0)

    def scanned() -> Scan:
        images = ScannedImages.drawn(data.validation, data.preprocessing, settings)
        return scan(network, probe, use.plugin.name, levels, use.plugin.levels.untouched, images, settings, Silent())

    found, scan_seconds = timed(scanned)
    print(f"{experiment.arch}: the scan took {scan_seconds} s", file=sys.stderr, flush=True)
    expected, plain_seconds = timed(plain)
    return Outcome(
        layers=len(probe.layers),
        runs=len(changes),
        plain=plain_seconds,
        scan=scan_seconds,
        share_of_images=sum(cell.images for cell in found.cells) / (len(found.cells) * found.images),
        differences=sum(found.recommended[layer] != level for layer, level in expected.items()),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=usable_cores(), help="for both ways; 1 on a busy machine")
    parser.add_argument("--networks", nargs="+", default=[each.arch for each in EXPERIMENTS], help="those to compare")
    given = parser.parse_args()
    table = Table(
        "network",
        "of",
        "layers",
        "runs",
        "plain, s (processors)",
        "scan, s (processors)",
        "images run",
        "factor",
        "layers that differ",
    )
    bars = []
    with tempfile.TemporaryDirectory(prefix="edgeopt-sensitivity-") as temporary:
        for experiment in (each for each in EXPERIMENTS if each.arch in given.networks):
            outcome = compare(experiment, given.threads, Path(temporary))
            factor = outcome.plain.clock / outcome.scan.clock
            print(f"{experiment.arch}: {factor:.1f} times faster", file=sys.stderr, flush=True)
            table.add_row(
                experiment.arch,
                experiment.probe,
                str(outcome.layers),
                str(outcome.runs),
                str(outcome.plain),
                str(outcome.scan),
                f"{100 * outcome.share_of_images:.0f} %",
                f"{factor:.1f}",
                str(outcome.differences),
            )
            name = f"{experiment.arch}_{experiment.probe}"
            bars += [
                Bar(f"{name}_factor", factor, LEAST_FACTOR, at_least=True),
                Bar(f"{name}_layers_that_differ", outcome.differences, 0),
            ]
    Console(width=120).print(table)
    finish(*bars)


if __name__ == "__main__":
    main()
