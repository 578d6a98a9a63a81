"""Plugins of another task than classification: how bright an image is, 0 to 1."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

import edgeopt
from edgeopt.plugins import (
    DatasetOptions,
    DatasetPlugin,
    Form,
    ModelPlugin,
    ModelState,
    Options,
    PassPlugin,
    RawDataset,
    Score,
    ScoreKind,
    Scores,
    Task,
    TaskPlugin,
    mean_interval,
)


class LevelOptions(Options):
    close: float = Field(0.1, gt=0, description="an answer that is off by no more than this is right")


@dataclass(frozen=True)
class Answer:
    level: float


@dataclass(frozen=True)
class Level(Task):
    """Targets are floats (n,), and the one output is (n, 1)."""

    close: float = 0.1
    name: str = "level"
    score_kinds: tuple[ScoreKind, ...] = (ScoreKind("error", larger_is_better=False, unit=""),)

    def collected(self, targets):
        import numpy as np

        return np.asarray(targets, dtype=np.float32)

    def strata(self, images):
        return [int(3 * level) for level in images.levels]

    def loss(self, outputs, batch, label_smoothing=0.0):
        return (outputs[0][:, 0] - batch).square().mean()

    def scores(self, outputs, targets):
        errors = -self.grades(outputs, targets)
        return Scores((Score(float(errors.mean()), mean_interval(errors), len(errors), self.score_kinds[0]),))

    def grades(self, outputs, targets):
        return -abs(outputs[0][:, 0].astype(float) - targets)

    def right(self, outputs, targets):
        return self.grades(outputs, targets) >= -self.close

    def alike(self, outputs, reference):
        return abs(outputs[0] - reference[0])[:, 0] <= self.close

    def decode(self, outputs):
        return [Answer(float(level)) for level in outputs[0][:, 0]]

    def told(self, answer, classes):
        return f"{answer.level:.2f}"


class LevelImages:
    """Grey images of one brightness each."""

    def __init__(self, count: int, seed: int) -> None:
        import numpy as np

        self.levels = np.random.default_rng(seed).random(count)

    def __len__(self) -> int:
        return len(self.levels)

    def __getitem__(self, index):
        import numpy as np

        noise = np.random.default_rng(index).integers(-8, 8, (16, 16))
        return (255 * self.levels[index] + noise).clip(0, 255).astype(np.uint8)

    def target(self, index):
        return float(self.levels[index])


class BothOptions(DatasetOptions):
    levels: bool = Field(True, description="whether images have levels besides labels")


def load(options):
    return RawDataset((), {"train": LevelImages(90, 0)})


def build(options, data):
    import torch

    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(1))
    net(torch.zeros(1, *(3, data.preprocessing.image_size, data.preprocessing.image_size)))
    return ModelState(net, Form.MODULE, data.task, data.classes, data.preprocessing)


def apply(state, options, context):
    return state


@edgeopt.hookimpl
def edgeopt_tasks():
    yield TaskPlugin(
        "level", "How bright an image is, 0 to 1.", LevelOptions, make=lambda options: Level(options.close)
    )


@edgeopt.hookimpl
def edgeopt_datasets():
    of = {"load": load, "fingerprint": lambda options: "levels-1"}
    yield DatasetPlugin("levels", "Grey images.", DatasetOptions, tasks=("level",), **of)
    yield DatasetPlugin(
        "both",
        "Grey images with labels.",
        BothOptions,
        tasks=("level", "classification"),
        tasks_of=lambda options: ("level", "classification") if options.levels else ("classification",),
        **of,
    )


@edgeopt.hookimpl
def edgeopt_models():
    yield ModelPlugin("classifier", "A classifier.", Options, build=build)
    yield ModelPlugin("any-net", "A network.", Options, build=build, tasks=("level", "classification"))


@edgeopt.hookimpl
def edgeopt_passes():
    yield PassPlugin("labels-alone", "Looks at labels.", Options, apply=apply, tasks=("classification",))
