"""Whether two runs answered the same test images, and which of one is which of the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.comparison.runs import ReadRun
from edgeopt.report.kept_answers import KeptAnswers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.arrays import Labels

_LISTED = 4


@dataclass(frozen=True, eq=False)
class SameImages:
    """The test images of two runs, as the first one orders them: `place_in_other`, int64 (n,), is where the other has
    each, and `class_in_first`, int64 (classes,), what the first calls each class of the other.
    """

    first: KeptAnswers
    other: KeptAnswers
    place_in_other: NDArray[np.int64]
    class_in_first: NDArray[np.int64]

    @property
    def labels(self) -> Labels:
        """Class of each image, int64 (n,)."""
        return self.first.labels

    @property
    def are_graded(self) -> bool:
        """Whether both runs kept how well each image was answered, because answers are no classes."""
        return self.first.graded is not None and self.other.graded is not None

    def answers_of_other(self, file: str) -> Labels:
        """What a file of the other run answered, in the first one's order and classes, int64 (n,)."""
        return np.asarray(self.class_in_first[self.other.answers[file][self.place_in_other]])


def same_images(first: ReadRun, other: ReadRun) -> SameImages | str:
    """Which test images are which, or why two runs cannot be compared image by image."""
    for run in (first, other):
        if run.answers is None:
            return (
                f"{run.title} keeps no answers per image, because an earlier edgeopt made it; run its recipe again, "
                "and what is in its store is not made anew where it still holds"
            )
    assert first.answers is not None and other.answers is not None
    if reason := _other_task(first, other):
        return reason
    if reason := _other_classes(first, other, first.answers, other.answers):
        return reason
    names = {name: index for index, name in enumerate(first.answers.classes)}
    classes = np.array([names[name] for name in other.answers.classes], dtype=np.int64)
    labels = classes[other.answers.labels]
    mine = np.lexsort((first.answers.labels, first.answers.images))
    theirs = np.lexsort((labels, other.answers.images))
    if not np.array_equal(first.answers.images[mine], other.answers.images[theirs]):
        return _other_images(first, other, first.answers, other.answers)
    relabelled = int((first.answers.labels[mine] != labels[theirs]).sum())
    if relabelled:
        return f"the test images are the same, but {_counted(relabelled)} of them have another class in {other.title}"
    place = np.empty(len(mine), dtype=np.int64)
    place[mine] = theirs
    return SameImages(first.answers, other.answers, place, classes)


def _other_task(first: ReadRun, other: ReadRun) -> str | None:
    """How answers are scored, where both runs say it and differ in it."""
    scores = [next((row.score.kind for row in run.report.rows if row.score), None) for run in (first, other)]
    if None in scores or scores[0] == scores[1]:
        return None
    told = (f"{run.title} is scored by {kind.called}" for run, kind in zip((first, other), scores, strict=True) if kind)
    return f"the tasks differ: {' and '.join(told)}"


def _other_classes(first: ReadRun, other: ReadRun, one: KeptAnswers, two: KeptAnswers) -> str | None:
    own, others = (each.graded.classes if each.graded else each.classes for each in (one, two))
    if (one.graded is None) != (two.graded is None):  # the older run has only whether images are right
        own, others = one.classes, two.classes
    missing = [name for name in own if name not in others]
    added = [name for name in others if name not in own]
    if not missing and not added:
        return None
    told = [f"{_listed(names)} only in {run.title}" for names, run in ((missing, first), (added, other)) if names]
    return f"the classes differ: {'; '.join(told)}"


def _other_images(first: ReadRun, other: ReadRun, one: KeptAnswers, two: KeptAnswers) -> str:
    """What differs, from the outside in: the data set, the split, or the images alone."""
    common = len(np.intersect1d(one.images, two.images))
    counts = f"{len(one.images)} in {first.title}, {len(two.images)} in {other.title}, {common} in both"
    before, after = first.report.dataset, other.report.dataset
    if before.name != after.name:
        what = f"the data sets differ: {before.name} and {after.name}"
    elif len(one.images) != len(two.images) or common:
        what = "the test splits differ"
    else:
        what = "the test images differ"
    return f"{what} ({counts}; fingerprints {before.fingerprint[:8]} and {after.fingerprint[:8]})"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _counted(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
