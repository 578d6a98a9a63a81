"""A data set and networks that train in a second, for the tests of everything that trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgeopt.options import Augmentation, TrainerSettings
from edgeopt.plugins.contexts import FULL_BUDGET, Budget, PassContext
from edgeopt.preprocessing import Preprocessing
from edgeopt.progress import Progress, Silent
from edgeopt.tasks.classification import Classification
from edgeopt.types import Form, ModelState, TrainingData

CLASSES = ("stripes", "columns", "plain")
PREPROCESSING = Preprocessing(image_size=12, resize=12, crop=12)


@dataclass(frozen=True)
class ArraySplit:
    labels: NDArray[np.int64]
    images: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, indices: Sequence[int] | slice) -> NDArray[np.uint8]:
        return self.images[indices]


def make_split(count: int, seed: int) -> ArraySplit:
    """Noisy images of horizontal stripes, of columns, and of neither."""
    random = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % 3
    images = random.normal(128, 40, (count, 12, 12, 3))
    for index, label in enumerate(labels):
        start = random.integers(2)
        if label == 0:
            images[index, start::2] += 60
        elif label == 1:
            images[index, :, start::2] += 60
    return ArraySplit(labels, images.clip(0, 255).astype(np.uint8))


def make_data(count: int = 120, augmentation: Augmentation | None = None) -> TrainingData:
    return TrainingData(
        classes=CLASSES,
        preprocessing=PREPROCESSING,
        train=make_split(count, 0),
        calibration=make_split(12, 1),
        validation=make_split(45, 2),
        fingerprint=f"stripes-{count}",
        augmentation=augmentation or Augmentation(),
    )


def make_net(momentum: float = 0.1) -> nn.Sequential:
    torch.manual_seed(0)
    features = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8, momentum=momentum), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2)
    )
    head = nn.Sequential(nn.Dropout(0.1), nn.Linear(16, 3))
    net = nn.Sequential()
    net.add_module("features", features)
    net.add_module("norm", nn.BatchNorm2d(16, momentum=momentum))
    net.add_module("pool", nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    net.add_module("head", head)
    return net


def make_state(net: nn.Module) -> ModelState:
    return ModelState(net, Form.MODULE, Classification(), CLASSES, PREPROCESSING)


def make_context(
    work_dir: Path,
    data: TrainingData | None = None,
    *,
    seed: int = 17,
    progress: Progress | None = None,
    budget: Budget = FULL_BUDGET,
    **trainer: object,
) -> PassContext:
    work_dir.mkdir(parents=True, exist_ok=True)
    settings = TrainerSettings(**{"accelerator": "cpu", "threads": 1, **trainer})
    return PassContext(data or make_data(), settings, seed, work_dir, progress or Silent(), budget)


def weights_of(module: nn.Module) -> dict[str, bytes]:
    return {name: value.contiguous().numpy().tobytes() for name, value in module.state_dict().items()}


class Steps:
    """A progress that counts, and does something when a number of batches is done."""

    def __init__(self, at: int = -1, act: Callable[[], None] = lambda: None) -> None:
        self.at, self.act = at, act
        self.total, self.done = 0.0, 0.0
        self.said: list[str] = []

    @contextmanager
    def bar(self, label: str, total: float) -> Iterator[Steps]:
        self.label, self.total = label, total
        yield self

    def advance(self, steps: float = 1) -> None:
        self.done += steps
        if self.done == self.at:
            self.act()

    def say(self, text: str) -> None:
        self.said.append(text)
