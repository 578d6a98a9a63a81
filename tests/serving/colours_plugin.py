"""An exporter whose files answer with the red of an image, and fail in a way that its green asks for; and a task of a
third party, of which nobody has drawn anything.

Class "c7" is red 7 of 255. Green 250 aborts the process, 251 hangs, 252 raises, 253 answers with no number, 254 takes a
fifth of a second, 255 fills the process's standard error. A file holds words that say how it is opened.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeopt.errors import ExportError
from edgeopt.options import Options
from edgeopt.plugins.declarations import ExporterPlugin
from edgeopt.plugins.hookspecs import hookimpl
from edgeopt.plugins.task import TaskPlugin
from edgeopt.tasks import Score, ScoreKind, Scores, Task

CLASSES = 100


@dataclass(frozen=True)
class Warmth:
    value: float


@dataclass(frozen=True)
class Warming(Task):
    """How much warmer than blue an image is: what files say first of all."""

    name: str = "warmth"
    score_kinds: tuple[ScoreKind, ...] = (ScoreKind("near"),)

    def loss(self, outputs: Any, batch: Any, label_smoothing: float = 0.0) -> Any:
        return ((outputs[0][:, 0] - batch) ** 2).mean()

    def scores(self, outputs: Any, targets: Any) -> Scores:
        near = float(self.right(outputs, targets).mean())
        return Scores((Score(near, (0.0, 1.0), len(targets), self.score_kinds[0]),))

    def right(self, outputs: Any, targets: Any) -> Any:
        return abs(outputs[0][:, 0] - targets) < 1

    def alike(self, outputs: Any, reference: Any) -> Any:
        return abs(outputs[0][:, 0] - reference[0][:, 0]) < 1

    def decode(self, outputs: Any) -> list[Warmth]:
        return [Warmth(float(value)) for value in outputs[0][:, 0]]

    def told(self, answer: Warmth, classes: Any) -> str:
        return f"{answer.value:.0f} degrees"


class ColoursPredictor:
    def __init__(self, path: Path) -> None:
        words = path.read_text().split()
        if "abort" in words:
            os.abort()
        if "damaged" in words:
            raise ExportError(f"{path.name} is damaged", hint="export it again")
        if "hang" in words:
            time.sleep(100_000)
        if "abort-once" in words and not (mark := path.with_suffix(".aborted")).exists():
            mark.touch()
            os.abort()

    def predict(self, batch: Any) -> Any:
        import numpy as np

        red, green = (round(float(batch[0, channel].mean()) * 255) for channel in (0, 1))
        match green:
            case 250:
                print("the kernel has no room", file=sys.stderr, flush=True)
                os.abort()
            case 251:
                time.sleep(100_000)
            case 252:
                raise ValueError("this colour is not known")
            case 254:
                time.sleep(0.2)
            case 255:
                print("a library that talks\n" * 2_000, file=sys.stderr, flush=True)
        logits = np.zeros((len(batch), CLASSES), np.float32)
        logits[:, red % CLASSES] = np.nan if green == 253 else 9
        return (logits,)


def export_nothing(state: Any, options: Any, context: Any) -> Any:
    raise ExportError("files of colours are written by hand")


@hookimpl
def edgeopt_exporters() -> Iterator[ExporterPlugin]:
    yield ExporterPlugin(
        "colours",
        "Answers with the red of an image.",
        Options,
        export=export_nothing,
        open=lambda path, threads: ColoursPredictor(path),
        runtime="colours",
        suffix=".txt",
    )


@hookimpl
def edgeopt_tasks() -> Iterator[TaskPlugin]:
    yield TaskPlugin("warmth", "How warm an image is.", Options, make=lambda options: Warming())
