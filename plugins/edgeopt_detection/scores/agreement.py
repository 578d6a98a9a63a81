"""How far two sets of answers for the same images agree, such as those of a program and of the file made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeopt_detection.boxes import Boxes, Detections
from edgeopt_detection.scores.matching import match

SAME_OVERLAP = 0.9


@dataclass(frozen=True)
class BoxAgreement:
    """Of `first` and `second` boxes of two sets of answers, how many are `matched` with one another."""

    first: int
    second: int
    matched: int

    @property
    def share(self) -> float:
        """Matched boxes of both, of all boxes of both; 1 where there are none."""
        boxes = self.first + self.second
        return 2 * self.matched / boxes if boxes else 1.0


def box_agreement(
    some: Sequence[Detections], others: Sequence[Detections], class_count: int, least_score: float = 0.0
) -> BoxAgreement:
    """Matches boxes of the same image and class that overlap by 0.9 at least, each with one other.

    Boxes below `least_score`, a score between 0 and 1, are left out of both: what an app does not show may differ.
    """
    first, second = ([_at_least(each, least_score) for each in answers] for answers in (some, others))
    boxes = [Boxes.of(each.corners, each.classes) for each in second]
    matches = match(first, boxes, class_count, (SAME_OVERLAP,), most=None)
    return BoxAgreement(sum(map(len, first)), sum(map(len, second)), int(np.count_nonzero(matches.hits)))


def _at_least(answer: Detections, score: float) -> Detections:
    chosen = answer.scores >= score
    return Detections(answer.corners[chosen], answer.classes[chosen], answer.scores[chosen])
