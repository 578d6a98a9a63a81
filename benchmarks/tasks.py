"""Detection and segmentation on embedded data in one run: what is lost by int8, and what is won.

SSDLite learns boxes of generated shapes, LRASPP their masks. Each is trained once; `qat` and `ptq` start from the same
float weights, through the run's store. Everything is read from the reports: figures of files, each opened in its
runtime, beside the float file of the same runtime. With `--out` a run that was broken off goes on where it was.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bars import Bar, finish
from rich.console import Console
from rich.table import Table

import edgeopt
from edgeopt.recipe.read import parse_recipe
from edgeopt.report.compare import Comparison, comparisons
from edgeopt.report.schema import Report

Step = dict[str, Any]
EXPORTS: tuple[Step, ...] = ({"use": "executorch"}, {"use": "onnx"}, {"use": "tflite"})
CHOSEN: Step = {"use": "onnx", "name": "onnx-auto", "precision": "auto"}
LEAST_MAP, MOST_MINUTES = 0.55, 40
LOST = {"ssdlite-qat": 0.01, "ssdlite-ptq": 0.03, "lraspp-qat": 0.01}
AGREEING = {"ssdlite": 0.97, "lraspp": 0.99}
TIMES_SMALLER = 3.3


@dataclass(frozen=True)
class Experiment:
    """A recipe: a data set, a network, its training, and what is done to it then."""

    name: str
    dataset: Step
    model: Step
    train: Step
    quantize: Step
    exports: tuple[Step, ...]

    def recipe(self, threads: int, seed: int) -> edgeopt.Recipe:
        """The whole recipe."""
        return parse_recipe(
            {
                "schema": 1,
                "name": self.name,
                "seed": seed,
                "dataset": self.dataset,
                "model": self.model,
                "passes": [self.train, self.quantize],
                "exports": list(self.exports),
                "trainer": {"threads": threads, "channels_last": True},
                "measure": {"runs": 60, "threads": 1},
            }
        )


def experiments(share: float, size: int) -> Iterator[Experiment]:
    """All of them, each training for `share` of its epochs; detectors see images of `size`, px."""

    def epochs(count: int) -> int:
        return max(2, round(share * count))

    boxes = {"use": "shapes-boxes", "images": 9500, "drawn_size": size, "image_size": size, "mean": [0.5] * 3}
    boxes |= {"std": [0.5] * 3, "augmentation": {"horizontal_flip": True}}
    boxes |= {"shares": {"validation": 0.03, "test": 0.08, "calibration": 0.05}}
    detector = {"use": "torchvision-detector", "arch": "ssdlite", "anchors": [0.15, 0.7], "score_threshold": 0.01}
    train = {"use": "train", "epochs": epochs(12), "batch_size": 16, "learning_rate": 2e-3, "gradient_clip": 10.0}
    train |= {"warmup_epochs": 1}
    qat = {"use": "qat", "epochs": epochs(2), "batch_size": 16, "learning_rate": 1e-4}
    yield Experiment("ssdlite-qat", boxes, detector, train, qat, (*EXPORTS, CHOSEN))
    yield Experiment("ssdlite-ptq", boxes, detector, train, {"use": "ptq"}, EXPORTS)
    masks = {"use": "shapes-masks", "image_size": 96, "augmentation": {"horizontal_flip": True, "crop_padding": 6}}
    segmenter = {"use": "segmenter", "arch": "lraspp_mobilenet_v3_large"}
    train = {"use": "train", "epochs": epochs(40), "batch_size": 16, "learning_rate": 2e-3}
    qat = {"use": "qat", "epochs": epochs(4), "batch_size": 16, "learning_rate": 1e-4}
    yield Experiment("lraspp-qat", masks, segmenter, train, qat, EXPORTS)


def judge(reports: Mapping[str, Report]) -> Iterator[Bar]:
    """The bars of those experiments that were made, from their reports by name."""
    for name, report in reports.items():
        network, _, way = name.partition("-")
        pairs = comparisons(report.rows)
        plain = [pair for pair in pairs if pair.optimized.export != CHOSEN["name"]]
        if name == "ssdlite-qat":
            worst = min(score.value for pair in plain if (score := pair.baseline.score) is not None)
            yield Bar("ssdlite, mAP of the float file", worst, LEAST_MAP, at_least=True)
            seconds = sum(stage.seconds for stage in report.stages if stage.label in ("train", "qat"))
            yield Bar("ssdlite, minutes of training", seconds / 60, MOST_MINUTES)
        for pair in plain:
            what = f"{network} {way}, {pair.optimized.export}"
            yield Bar(f"{what}, {_metric(pair)} lost", -_change(pair), LOST[name])
            yield Bar(f"{what}, agreement", pair.optimized.agreement or 0.0, AGREEING[network], at_least=True)
        if name == "ssdlite-qat":
            yield from _sizes_and_latencies(pairs)


def _sizes_and_latencies(pairs: Sequence[Comparison]) -> Iterator[Bar]:
    for pair in pairs:
        what = f"ssdlite qat, {pair.optimized.export}"
        if pair.optimized.export != CHOSEN["name"]:
            before, after = pair.baseline.size_bytes, pair.optimized.size_bytes
            yield Bar(f"{what}, times smaller", (before or 0) / (after or 1), TIMES_SMALLER, at_least=True)
        yield Bar(f"{what}, times faster", pair.latency_factor or 0.0, 1.0, at_least=True)


def _metric(pair: Comparison) -> str:
    score = pair.optimized.score
    return score.kind.called if score is not None else "score"


def _change(pair: Comparison) -> float:
    """What the file has more than the float file; a file that failed has lost everything."""
    return -1.0 if pair.score_change is None else pair.score_change


def run_all(given: argparse.Namespace, out: Path, table: Table) -> dict[str, Report]:
    """Reports by name of the experiment, for those that were asked for; each file becomes a row of `table`."""
    reports = {}
    for experiment in experiments(given.share, given.size):
        if given.only and not any(part in experiment.name for part in given.only):
            continue
        result = edgeopt.run(experiment.recipe(given.threads, given.seed), out=out, console=Console(stderr=True))
        reports[experiment.name] = result.report
        for row in result.report.rows:
            if row.error or row.score is None or row.latency_ms is None:
                table.add_row(experiment.name, f"{row.export} {row.precision}", row.role, row.error or "not run")
                continue
            score = f"{row.score.kind.called} {row.score.value:.4f}"
            agreement = "" if row.agreement is None else f"{100 * row.agreement:.1f} %"
            figures = (score, agreement, f"{row.size_bytes or 0:,}", f"{row.latency_ms.p50:.3f}")
            table.add_row(experiment.name, f"{row.export} {row.precision}", row.role, *figures)
    return reports


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the recipes, shows every file and judges."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="threads of training; 1 on a busy machine")
    parser.add_argument("--seed", type=int, default=17, help="of the splits and the trainings")
    parser.add_argument("--share", type=float, default=1.0, help="of the epochs, to see it run in short")
    parser.add_argument("--size", type=int, default=128, help="of the images that detectors see, px")
    parser.add_argument("--only", nargs="+", default=[], help="experiments whose name contains one of these")
    parser.add_argument("--out", type=Path, help="keep the runs here; finished stages are not repeated")
    given = parser.parse_args(argv)
    table = Table("experiment", "file", "role", "score", "agreement", "bytes", "p50 ms")
    with tempfile.TemporaryDirectory() as temporary:
        reports = run_all(given, given.out or Path(temporary), table)
    Console(width=140).print(table)
    finish(*judge(reports))


if __name__ == "__main__":
    main()
