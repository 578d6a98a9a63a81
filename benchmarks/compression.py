"""What each way of making a model smaller saves in shipped files, and what it costs in accuracy, on embedded data in
one run.

The recipes of a model share one store, so that its float training is done once. Everything is read from the reports:
figures of files, each opened in its runtime. What was trained again after it was made smaller is judged against the
float model at equal training, with as many epochs in all, or against the shorter one where that is better: else the
further epochs would hide what the compression costs.

Accuracy is the mean over several seeds, each with its own draw of the splits: the test split of one draw has 270
images, of which a single one is 0.37 points, and limits of half a point cannot be told from luck on it. Sizes and
latencies are those of the first seed.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from bars import Bar, finish
from rich.console import Console
from rich.table import Table

import edgeopt
from edgeopt.recipe.read import parse_recipe
from edgeopt.report.compare import Comparison

Pass = dict[str, Any]
ONNX, EXECUTORCH = {"use": "onnx"}, {"use": "executorch"}
INT4_ONNX = {"use": "onnx", "opset": 21}
LATENCY_LIMITS = {"resnet18": 0.3, "mobilenet_v2": 0.5}


@dataclass(frozen=True)
class Settings:
    """What all recipes share."""

    dataset: Mapping[str, Any]
    epochs: int
    threads: int
    seed: int


@dataclass(frozen=True)
class Experiment:
    """A recipe: what follows the float training of a model, which takes `more_epochs` beyond those of the others."""

    name: str
    model: str
    passes: tuple[Pass, ...]
    exports: tuple[Pass, ...] = (ONNX,)
    baseline: bool = False
    more_epochs: int = 0

    def recipe(self, settings: Settings) -> edgeopt.Recipe:
        """The whole recipe."""
        train = {
            "use": "train",
            "epochs": settings.epochs + self.more_epochs,
            "learning_rate": 3e-3,
            "schedule": "one-cycle",
        }
        return parse_recipe(
            {
                "schema": 1,
                "name": f"{self.name.replace('_', '-')}-seed{settings.seed}",
                "seed": settings.seed,
                "baseline": self.baseline,
                "dataset": {**settings.dataset, "shares": {"seed": settings.seed}},
                "model": {"use": "torchvision", "arch": self.model},
                "passes": [train, *self.passes],
                "exports": list(self.exports),
                "trainer": {"threads": settings.threads},
                "measure": {"runs": 40, "rounds": 3, "threads": 1},
            }
        )


def experiments(settings: Settings) -> Iterator[Experiment]:
    """All of them."""
    recovery = max(2, settings.epochs // 2)
    int8 = {"use": "ptq"}
    for model in LATENCY_LIMITS:
        halved = {"use": "prune-structured", "keep": 0.5, "importance": "taylor", "round_to": 16, "learning_rate": 2e-3}
        taught = {"epochs": 2 * settings.epochs, "teacher": "float", "control": False}
        yield Experiment(f"{model}-float-longest", model, (), more_epochs=2 * settings.epochs)
        yield Experiment(f"{model}-half-int8", model, ({**halved, **taught}, int8), (ONNX, EXECUTORCH), baseline=True)
    yield Experiment("resnet18-int8", "resnet18", ({"use": "ptq"},), (INT4_ONNX,))
    yield Experiment("resnet18-float-longer", "resnet18", (), more_epochs=recovery)
    for bits in (8, 4):
        low = {"use": "qat", "weight_bits": 4, "activation_bits": bits, "epochs": recovery, "learning_rate": 1e-3}
        yield Experiment(f"resnet18-w4a{bits}", "resnet18", (low,), (INT4_ONNX,))
    for model in ("mobilenet_v2", "mobilenet_v3_small"):
        yield Experiment(f"{model}-equalized", model, ({"use": "ptq", "equalize": True},))
        plain = {"use": "ptq", "weight_bits": 4}
        yield Experiment(f"{model}-w4a8", model, (plain,), (INT4_ONNX,))
        yield Experiment(f"{model}-w4a8-adaround", model, ({**plain, "rounding": "adaptive"},), (INT4_ONNX,))
    taught = {"use": "qat", "teacher": "float", "epochs": recovery}
    yield Experiment("mobilenet_v3_small-taught", "mobilenet_v3_small", (taught,))


def judge(every: Sequence[Mapping[str, Any]]) -> Iterator[Bar]:
    """The bars of those experiments that were made, from each seed's reports by name of the experiment."""
    reports = every[0]

    def made(*names: str) -> bool:
        return all(name in reports for name in names)

    def float_accuracy(name: str) -> float:
        return fmean(float(seed[name].programs[0].test_accuracy) for seed in every)

    def accuracy(name: str) -> float:
        """The worst of its files."""
        files = zip(*([row for row in seed[name].rows if row.role == "optimized"] for seed in every), strict=True)
        return min(fmean(float(row.test_accuracy) for row in seeds) for seeds in files)

    def lost(name: str, trained_alike: str = "") -> float:
        """What the worst file lost against the float program, or that of equal training where it is better."""
        return max(float_accuracy(each) for each in (name, trained_alike) if each) - accuracy(name)

    for model, limit in LATENCY_LIMITS.items():
        name = f"{model}-half-int8"
        if not made(name, f"{model}-float-longest"):
            continue
        yield Bar(f"{model} half + int8, accuracy lost", lost(name, f"{model}-float-longest"), 0.01)
        rows = {(row.export, row.role): row for row in reports[name].rows}
        for export in ("onnx", "executorch"):
            whole, small = rows[export, "baseline"], rows[export, "optimized"]
            times = whole.size_bytes / small.size_bytes
            yield Bar(f"{model} half + int8, {export}, times smaller", times, 7.0, at_least=True)
            share = 1 / Comparison(small, whole).latency_factor
            yield Bar(f"{model} half + int8, {export}, share of the latency", share, limit)
    for bits, limit in ((4, 0.02), (8, 0.005)):
        if made(f"resnet18-w4a{bits}", "resnet18-float-longer"):
            share = lost(f"resnet18-w4a{bits}", "resnet18-float-longer")
            yield Bar(f"resnet18 w4a{bits}, accuracy lost", share, limit)
    if made("resnet18-int8", "resnet18-w4a8"):
        small, int8 = (reports[name].rows[-1].size_bytes for name in ("resnet18-w4a8", "resnet18-int8"))
        yield Bar("resnet18 4 bits, share of the int8 file", small / int8, 0.6)
    for model in ("mobilenet_v2", "mobilenet_v3_small"):
        if made(f"{model}-equalized"):
            yield Bar(f"{model} int8 equalized, accuracy lost", lost(f"{model}-equalized"), 0.01)
        if made(f"{model}-w4a8", f"{model}-w4a8-adaround") and lost(f"{model}-w4a8") >= 0.05:
            won = accuracy(f"{model}-w4a8-adaround") - accuracy(f"{model}-w4a8")
            yield Bar(f"{model} w4a8, points that adaptive rounding wins", won, 0.05, at_least=True)
    if not made("mobilenet_v3_small-taught"):
        return
    facts = reports["mobilenet_v3_small-taught"].passes[-1].facts
    low, _ = facts["control_accuracy_interval"]
    by_chance = low - facts["control_accuracy"]
    yield Bar("mobilenet_v3_small qat, won by a teacher", facts["teacher_gain"], by_chance, at_least=True)


def means(every: Sequence[Mapping[str, Any]]) -> Table:
    """Each file once: its accuracy over all seeds, its size and latency with the first one."""
    table = Table("experiment", "file", "role", "accuracy, mean", "bytes", "p50 ms")
    for name, report in every[0].items():
        for place, row in enumerate(report.rows):
            accuracy = fmean(float(seed[name].rows[place].test_accuracy) for seed in every)
            values = (f"{100 * accuracy:.1f} %", f"{row.size_bytes:,}", f"{row.latency_ms.p50:.3f}")
            table.add_row(name, f"{row.export} {row.precision}", row.role, *values)
    return table


def run_all(settings: Settings, only: Sequence[str], out: Path, table: Table) -> dict[str, Any]:
    """Reports by name of the experiment, for those that `only` names or for all; each file becomes a row of `table`."""
    reports = {}
    for experiment in experiments(settings):
        if only and not any(part in experiment.name for part in only):
            continue
        result = edgeopt.run(experiment.recipe(settings), out=out, console=Console(stderr=True))
        reports[experiment.name] = result.report
        for row in result.report.rows:
            values = (f"{100 * row.test_accuracy:.1f} %", f"{row.size_bytes:,}", f"{row.latency_ms.p50:.3f}")
            table.add_row(experiment.name, str(settings.seed), f"{row.export} {row.precision}", row.role, *values)
    return reports


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the recipes, shows every file and judges."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="digits", help="an embedded data set: digits or shapes")
    parser.add_argument("--image-size", type=int, default=64, help="edge of the images, px")
    parser.add_argument("--epochs", type=int, default=8, help="epochs of the float training")
    parser.add_argument("--threads", type=int, default=2, help="threads of training; 1 on a busy machine")
    parser.add_argument("--seeds", type=int, nargs="+", default=[17, 18, 19], help="of draw and training")
    parser.add_argument("--only", nargs="+", default=[], help="experiments whose name contains one of these")
    parser.add_argument("--out", type=Path, help="keep the runs here; finished stages are not repeated")
    given = parser.parse_args(argv)
    table = Table("experiment", "seed", "file", "role", "accuracy", "bytes", "p50 ms")
    every = []
    with tempfile.TemporaryDirectory() as temporary:
        for seed in given.seeds:
            data = {"use": given.dataset, "image_size": given.image_size}
            settings = Settings(data, given.epochs, given.threads, seed)
            every.append(run_all(settings, given.only, given.out or Path(temporary), table))
    Console(width=120).print(table)
    Console(width=120).print(means(every))
    finish(*judge(every))


if __name__ == "__main__":
    main()
