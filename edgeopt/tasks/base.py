"""What every task answers: its loss, its metric with an interval, and how a prediction is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edgeopt.tasks.statistics import Paired

if TYPE_CHECKING:
    import torch

    from edgeopt.arrays import Labels, Logits


@dataclass(frozen=True)
class Score:
    """A metric on one split, 0 to 1, with its confidence interval and the number of images behind it."""

    value: float
    interval: tuple[float, float]
    count: int


@dataclass(frozen=True)
class Prediction:
    """What one image was taken for."""

    label: int
    confidence: float


class Task(Protocol):
    """Passes, evaluation and report ask the task, so that another one joins without branches in them."""

    @property
    def name(self) -> str: ...

    @property
    def metric(self) -> str:
        """Name of the metric that `score` gives; larger is better."""
        ...

    def loss(self, logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
        """Training loss, a scalar tensor."""
        ...

    def score(self, logits: Logits, labels: Labels) -> Score: ...

    def agreement(self, logits: Logits, reference: Logits) -> float:
        """Share of images, 0 to 1, for which both give the same answer."""
        ...

    def near_ties(self, logits: Logits, reference: Logits, margin: float) -> int:
        """How many images both answer differently although, for the reference, the two answers differ by no more than
        `margin` in logits.
        """
        ...

    def compare(self, before: Logits, after: Logits, labels: Labels) -> Paired:
        """How many of the same images the second answers lose and gain against the first."""
        ...

    def decode(self, logits: Logits) -> list[Prediction]: ...
