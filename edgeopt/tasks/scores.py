"""Named figures of how good answers are: each with its interval, its direction and the number of images behind it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

SHARE = "%"
"""The unit of a score that is a share, 0 to 1, and is shown in per cent."""


@dataclass(frozen=True)
class ScoreKind:
    """What a score is. `name` is how gates and `report.json` call it, as in "map50", and `title` how tables do.

    `unit` stands behind the figure; with "%" the figure is a share, 0 to 1, and shown in per cent.
    """

    name: str
    title: str = ""
    larger_is_better: bool = True
    unit: str = SHARE

    @property
    def called(self) -> str:
        """What tables call it."""
        return self.title or self.name.replace("_", " ")

    @property
    def is_share(self) -> bool:
        """Whether it is a share, 0 to 1."""
        return self.unit == SHARE

    def rank(self, value: float) -> float:
        """A number that is larger for a better score; NaN ranks last."""
        if math.isnan(value):
            return -math.inf
        return value if self.larger_is_better else -value

    def interval_text(self, bounds: tuple[float, float], *, with_unit: bool = True) -> str:
        """Both bounds, as in "96.8–99.6 %" or "1.2–1.9°"."""
        low, high = (f"{100 * each:.1f}" if self.is_share else three_digits(each) for each in bounds)
        unit = " %" if self.is_share else self.unit
        return f"{low}–{high}{unit if with_unit else ''}"

    def change_text(self, change: float) -> str:
        """A difference of two figures, as in "−0.4 points" or "+0.3°"."""
        text = f"{abs(100 * change):.1f}" if self.is_share else three_digits(abs(change))
        sign = "" if float(text) == 0 else "−" if change < 0 else "+"
        return f"{sign}{text}{' points' if self.is_share else self.unit}"

    def text(self, value: float) -> str:
        """A figure as people read it: "98.9 %" of a share (only a whole one reads 100.0 %), else "2.31°"."""
        if not self.is_share:
            return f"{three_digits(value)}{self.unit}"
        text = f"{100 * value:.1f}"
        return ">99.9 %" if text == "100.0" and value < 1 else f"{text} %"


_DEVIATIONS = NormalDist().inv_cdf(0.975)  # to either side, of an interval of 95 %
DROP = "_drop"
"""Ends the name of a gate on how much worse a score may become."""

ACCURACY = ScoreKind("accuracy")
"""The share of images that were answered rightly."""


@dataclass(frozen=True)
class Score:
    """A figure on one split, with its 95 % confidence interval and the number of images behind it."""

    value: float
    interval: tuple[float, float]
    count: int
    kind: ScoreKind = ACCURACY

    @property
    def text(self) -> str:
        """The figure as people read it."""
        return self.kind.text(self.value)

    @property
    def standard_error(self) -> float:
        """How far the figure moves with the images that were drawn, as its interval says; 0 where that is no number."""
        low, high = self.interval
        error = (high - low) / (2 * _DEVIATIONS)
        return error if math.isfinite(error) else 0.0


@dataclass(frozen=True)
class Scores:
    """All scores of the same answers. The first is the primary one, by which epochs, files and trials are ranked."""

    all: tuple[Score, ...]

    def __post_init__(self) -> None:
        names = [score.kind.name for score in self.all]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"a task gives at least one score, and each name once: {names}")

    def __iter__(self) -> Iterator[Score]:
        return iter(self.all)

    @property
    def primary(self) -> Score:
        """The score by which answers are ranked."""
        return self.all[0]

    @property
    def accuracy(self) -> Score | None:
        """The accuracy, which tasks with one class an image have."""
        return self.get(ACCURACY.name)

    def get(self, name: str) -> Score | None:
        """The score of that name, or None."""
        return next((score for score in self.all if score.kind.name == name), None)


def led_by_accuracy(
    scores: tuple[Score, ...], accuracy: float | None, interval: tuple[float, float] | None, count: int
) -> tuple[Score, ...]:
    """Scores in which the accuracy is the one given: reports of `classification` have it in fields of its own, and
    those of earlier versions have no others.
    """
    if accuracy is None:
        return scores
    known = next((score.count for score in scores if score.kind == ACCURACY), count)
    told = Score(accuracy, interval or (accuracy, accuracy), known)
    if not any(score.kind == ACCURACY for score in scores):
        return (told, *scores)
    return tuple(told if score.kind == ACCURACY else score for score in scores)


def three_digits(value: float) -> str:
    """A number to three digits, as in "0.123", "2.31", "12.3" and "123"."""
    for digits, below in ((3, 0.9995), (2, 9.995), (1, 99.95)):
        if abs(value) < below:
            return f"{value:.{digits}f}"
    return f"{value:.0f}"
