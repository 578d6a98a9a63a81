"""What a training remembers of its epochs, of which it keeps one as `edgeopt.plugins.kept_epoch` says."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from edgeopt.plugins import Curve, PausedError, ScoreKind, epoch_rank, prefers_epoch


@dataclass(frozen=True)
class Validation:
    """How a model did on the validation split: a higher `score_rank` is better, then a lower loss."""

    score: float
    loss: float
    score_rank: float
    score_error: float = 0.0

    @property
    def rank(self) -> tuple[float, float]:
        """Larger is better."""
        return epoch_rank(self.score_rank, self.loss)


@dataclass
class History:
    """What a training has done so far, in plain values and tensors; lists hold a value for each epoch.

    `collecting` names the BatchNorm layers whose statistics moved in the last epoch; `stopped` says why it ended, once
    it did.
    """

    training_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_score: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    best_epoch: int = 0
    least_rank: float = -math.inf
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    best_is_average: bool = False
    collecting: list[str] = field(default_factory=list)
    stopped: str = ""

    @property
    def epochs(self) -> int:
        """How many epochs are done."""
        return len(self.training_loss)

    def best(self, kind: ScoreKind) -> Validation:
        """How the epoch that is kept validated; `kind` is that of the score."""
        score = self.validation_score[self.best_epoch]
        return Validation(score, self.validation_loss[self.best_epoch], kind.rank(score))

    def prefers(self, validation: Validation, kind: ScoreKind, *, settles: bool) -> bool:
        """Whether the epoch that comes is rather to be kept than the best before; `settles` says that the learning rate
        comes down to the end.
        """
        self.least_rank = max(self.least_rank, validation.score_rank - validation.score_error)
        best = self.best(kind).rank if self.best_weights else None
        return prefers_epoch(validation.rank, best, self.least_rank, settles=settles)

    def is_paused(self, pause: int | None) -> bool:
        """Whether `pause` epochs are done, after which it was asked to pause, and it has not come to its end."""
        return not self.stopped and pause is not None and self.epochs >= pause

    def paused(self, epochs: int, kind: ScoreKind) -> PausedError:
        """How the best of the first `epochs` validated: a training that was killed later says the same."""
        return PausedError(epochs, max(self.validation_score[:epochs], key=kind.rank))

    def last(self, metric: str) -> dict[str, float]:
        """The figures of the last epoch; `metric` names the score."""
        return {curve.name: curve.y[-1] for curve in self.curves(metric)}

    def curves(self, metric: str) -> tuple[Curve, ...]:
        """For the report; `metric` names the score."""
        epochs = tuple(float(epoch) for epoch in range(1, self.epochs + 1))
        named = {
            "training loss": (self.training_loss, "loss"),
            "validation loss": (self.validation_loss, "loss"),
            f"validation {metric}": (self.validation_score, metric),
            "learning rate": (self.learning_rate, "learning rate"),
        }
        return tuple(Curve(name, epochs, tuple(values), y_label=label) for name, (values, label) in named.items())
