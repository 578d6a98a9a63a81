"""Counts of answers for one layer at one level, and when they are enough for a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.arrays import Json
from edgeopt.sensitivity.bounds import fewest_hits, most_hits
from edgeopt.sensitivity.table import Measure, Verdict
from edgeopt.tasks import Classification, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.arrays import Outputs

_OF_CLASSES = Classification()
_SLACK = 1e-9  # a threshold of 0.07 of 100 images is 7 images, whatever their product is in binary


@dataclass(frozen=True)
class Tally:
    """Sums over the images that were run so far.

    `right` and `wrong` count the float network's answers, `lost` and `gained` those of them that the change turned
    around. `error` is the sum of squared differences of logits, `energy` that of the float network's squared logits.
    """

    right: int = 0
    wrong: int = 0
    lost: int = 0
    gained: int = 0
    error: float = 0.0
    energy: float = 0.0

    @property
    def images(self) -> int:
        """How many images were run."""
        return self.right + self.wrong

    def plus(self, other: Tally) -> Tally:
        """Both together."""
        return Tally(
            self.right + other.right,
            self.wrong + other.wrong,
            self.lost + other.lost,
            self.gained + other.gained,
            self.error + other.error,
            self.energy + other.energy,
        )

    def to_json(self) -> Json:
        """The sums as JSON values."""
        return vars(self)

    @staticmethod
    def from_json(values: Mapping[str, Json]) -> Tally:
        """Reads what `to_json` gave."""
        return Tally(**values)


def tally(outputs: Outputs, reference: Outputs, targets: Any, task: Task = _OF_CLASSES) -> Tally:
    """Counts the answers of one batch that are right, as `task` has it; errors are those of all outputs."""
    before, after = task.right(reference, targets), task.right(outputs, targets)
    with np.errstate(over="ignore", invalid="ignore"):
        error = sum(
            _sum_of_squares(own.astype(np.float64) - other) for own, other in zip(outputs, reference, strict=True)
        )
    return Tally(
        right=int(before.sum()),
        wrong=int((~before).sum()),
        lost=int((before & ~after).sum()),
        gained=int((~before & after).sum()),
        error=error if math.isfinite(error) else math.inf,
        energy=sum(_sum_of_squares(each.astype(np.float64)) for each in reference),
    )


def _sum_of_squares(values: NDArray[np.float64]) -> float:
    return float(np.square(values).sum())


@dataclass(frozen=True)
class Judge:
    """Tells a score and its bounds from a tally, and when they decide.

    `whole` is the tally of the float network with itself: all images. The images of a tally are drawn from these at
    random. `error` is the probability of one wrong bound; with 0, bounds hold whatever the other images are.
    """

    measure: Measure
    threshold: float | None
    whole: Tally
    error: float = 0.0

    def score(self, seen: Tally) -> float:
        """The score on the images that were run: unbiased for all images."""
        if self.measure is Measure.LOGITS:
            return seen.error / seen.energy if seen.energy else 0.0
        return (seen.lost - seen.gained) / seen.images if seen.images else 0.0

    def bounds(self, seen: Tally) -> tuple[float, float | None]:
        """The least and the most that the score on all images can be; None for what has no bound."""
        if self.measure is Measure.LOGITS:  # a sum of squares only grows
            least = seen.error / self.whole.energy if self.whole.energy else 0.0
            return least, least if self._is_complete(seen) else None
        fewest, most = self._lost_images(seen, self.error)
        return fewest / self.whole.images, most / self.whole.images

    def verdict(self, seen: Tally) -> Verdict:
        """`PASSES` or `FAILS` as soon as it is certain, `NONE` before."""
        if self.threshold is None:
            return Verdict.NONE
        if self.measure is Measure.LOGITS:
            least, most = self.bounds(seen)
            if least > self.threshold:
                return Verdict.FAILS
            return Verdict.NONE if most is None else Verdict.PASSES
        allowed = math.floor(self.threshold * self.whole.images + _SLACK)
        for error in dict.fromkeys((0.0, self.error)):  # the first costs nothing
            fewest, most = self._lost_images(seen, error)
            if fewest > allowed:
                return Verdict.FAILS
            if most <= allowed:
                return Verdict.PASSES
        return Verdict.NONE

    def _lost_images(self, seen: Tally, error: float) -> tuple[int, int]:
        """The fewest and the most answers that can be lost on all images, less those that are gained."""
        lost = (self.whole.right, seen.right, seen.lost, error)
        gained = (self.whole.wrong, seen.wrong, seen.gained, error)
        return fewest_hits(*lost) - most_hits(*gained), most_hits(*lost) - fewest_hits(*gained)

    def _is_complete(self, seen: Tally) -> bool:
        return seen.images >= self.whole.images
