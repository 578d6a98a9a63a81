"""How well masks agree: intersection over union by class, with intervals over images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.plugins import in_parts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Counts = NDArray[np.int64]  # (n, classes)

_DRAWS, _SEED = 500, 0


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Of each image and class, int64 (n, classes), the px that both masks give to it, that either does, and that the
    truth does. Places of the ignored value count nowhere.
    """

    both: Counts
    either: Counts
    truth: Counts

    @property
    def by_class(self) -> NDArray[np.float64]:
        """IoU of each class over all images, (classes,); NaN where no mask has any of it."""
        return _share(self.both.sum(axis=0), self.either.sum(axis=0))

    @property
    def mean(self) -> float:
        """The mean of `by_class` over the classes that some mask has; NaN where there is none."""
        return float(_mean(self.by_class))

    @property
    def by_image(self) -> NDArray[np.float64]:
        """The mean IoU of the classes of each image, (n,): those that one of its masks has; 1 where all is ignored."""
        means: NDArray[np.float64] = np.nan_to_num(_mean(_share(self.both, self.either)), nan=1.0)
        return means

    @property
    def accuracy(self) -> float:
        """The share of judged places that have their class; NaN where nothing was judged."""
        return float(_share(self.both.sum(), self.truth.sum()))

    def intervals(self, confidence: float = 0.95) -> Intervals:
        """What the figures may be for other images like these: percentiles over images that are drawn anew, with
        replacement, always the same draws.

        Source: B. Efron, "Better bootstrap confidence intervals", JASA 82 (1987), section 1, the percentile method.
        """
        count = len(self.both)
        drawn = np.random.default_rng(_SEED).multinomial(count, np.full(count, 1 / count), size=_DRAWS)
        both, either, truth = (drawn @ each for each in (self.both, self.either, self.truth))
        by_class, tail = _share(both, either), (1 - confidence) / 2
        tails = [tail, 1 - tail]
        return Intervals(
            _percentiles(_mean(by_class), tails),
            _percentiles(_share(both.sum(axis=1), truth.sum(axis=1)), tails),
            tuple(_percentiles(each, tails) for each in by_class.T),
        )


@dataclass(frozen=True)
class Intervals:
    """Intervals of the mean, of the accuracy, and of each class; NaN where a figure is."""

    mean: tuple[float, float]
    accuracy: tuple[float, float]
    by_class: tuple[tuple[float, float], ...]


def overlaps(given: NDArray[Any], truth: NDArray[Any], classes: int, ignored: int) -> Overlaps:
    """Compares masks with the truth, both integers (n, height, width); places that are `ignored` in the truth count
    nowhere. What is given is a class everywhere.
    """
    parts = [_counts(some, real, classes, ignored) for some, real in in_parts(given, truth)]
    both, own, other = (np.concatenate([part[place] for part in parts]) for place in range(3))
    return Overlaps(both, own + other - both, other)


def _counts(given: NDArray[Any], truth: NDArray[Any], classes: int, ignored: int) -> tuple[Counts, Counts, Counts]:
    """Px of each image and class that both have, that the given mask has, and that the truth has."""
    own = given.reshape(len(given), -1).astype(np.int64)
    other = truth.reshape(len(truth), -1).astype(np.int64)
    judged = other != ignored
    image = np.broadcast_to(np.arange(len(other))[:, None] * classes, other.shape)

    def counted(places: NDArray[Any]) -> Counts:
        return np.bincount(places, minlength=len(other) * classes).reshape(len(other), classes)

    alike = judged & (own == other)
    return counted((image + own)[alike]), counted((image + own)[judged]), counted((image + other)[judged])


def _share(part: Any, whole: Any) -> NDArray[np.float64]:
    whole = np.asarray(whole, np.float64)
    shares: NDArray[np.float64] = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return shares


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean along the last axis, without NaN; NaN where all are."""
    known = ~np.isnan(values)
    return _share(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1))


def _percentiles(values: NDArray[np.float64], tails: list[float]) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    if not len(known):
        return np.nan, np.nan
    low, high = np.quantile(known, tails)
    return float(low), float(high)
