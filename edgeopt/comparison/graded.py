"""Two files on the same images where answers are graded by the task, and not right or wrong as classes are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.comparison.same_data import SameImages
from edgeopt.comparison.schema import AccuracyChange, Change, ChangedImage, ClassChange
from edgeopt.report.schema import Row
from edgeopt.tasks.statistics import Paired, bootstrap_interval, holm, mean_interval, paired

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Grades = NDArray[np.float64]


def graded_change(images: SameImages, before: Row, after: Row) -> AccuracyChange:
    """The primary scores of two files, and image by image how well both answered.

    Where grades are 0 and 1 alone, images are lost or gained, as of classes. Others are compared by their means, with
    the interval of the paired bootstrap; McNemar's test is then the sign test of those that were answered worse or
    better.
    """
    first, second = images.first.graded, images.other.graded
    assert first is not None and second is not None and before.score is not None and after.score is not None
    ones = first.grades[before.file].astype(np.float64)
    others = second.grades[after.file][images.place_in_other].astype(np.float64)
    moved = others - ones
    is_graded = not set(np.unique([ones, others]).tolist()) <= {0.0, 1.0}
    counted = paired(len(moved), int((moved < 0).sum()), int((moved > 0).sum()), graded=is_graded)
    told = first.told[before.file]
    told_other = tuple(second.told[after.file][place] for place in images.place_in_other.tolist())
    interval = _interval(moved, counted)
    return AccuracyChange(
        before=before.score.value,
        after=after.score.value,
        paired=counted,
        interval=interval,
        other_answers=sum(one != other for one, other in zip(told, told_other, strict=True)),
        verdict=_verdict(counted, interval),
        classes=tuple(_classes(images, ones, others, is_graded=is_graded)),
        lost=tuple(_changed(images, np.flatnonzero(moved < 0), ones, others, (told, told_other))),
        gained=tuple(_changed(images, np.flatnonzero(moved > 0), ones, others, (told, told_other))),
        kind=before.score.kind,
        grades=(float(ones.mean()), float(others.mean())) if is_graded else None,
    )


def paired_verdict(counted: Paired) -> Change:
    """What became of images that are right or wrong."""
    if not counted.lost + counted.gained:
        return Change.SAME
    if counted.may_be_chance:
        return Change.UNCLEAR
    return Change.WORSE if counted.change < 0 else Change.BETTER


def _interval(moved: Grades, counted: Paired) -> tuple[float, float] | None:
    if not counted.graded:
        return bootstrap_interval(counted)
    return mean_interval(moved) if counted.lost + counted.gained else None


def _verdict(counted: Paired, interval: tuple[float, float] | None) -> Change:
    """Of grades, the interval of their mean difference tells: it is no chance where zero lies outside."""
    if not counted.graded or interval is None:
        return paired_verdict(counted)
    if interval[0] <= 0 <= interval[1]:
        return Change.UNCLEAR
    return Change.WORSE if interval[1] < 0 else Change.BETTER


def _classes(images: SameImages, ones: Grades, others: Grades, *, is_graded: bool) -> Iterator[ClassChange]:
    """Every class that some test image has, in the data set's order."""
    graded = images.first.graded
    assert graded is not None
    found = []
    for name, has in zip(graded.classes, graded.has.T, strict=True):
        if has.any():
            moved = others[has] - ones[has]
            lost, gained = int((moved < 0).sum()), int((moved > 0).sum())
            found.append((name, has, paired(len(moved), lost, gained, graded=is_graded)))
    raised = holm([counted.p_value for _, _, counted in found])
    for (name, has, counted), p_value in zip(found, raised, strict=True):
        yield ClassChange(
            name=name,
            images=counted.images,
            before=float(ones[has].mean()),
            after=float(others[has].mean()),
            lost=counted.lost,
            gained=counted.gained,
            p_value=p_value,
        )


def _changed(
    images: SameImages,
    places: NDArray[np.int64],
    ones: Grades,
    others: Grades,
    told: tuple[tuple[str, ...], tuple[str, ...]],
) -> Iterator[ChangedImage]:
    """Images at `places`, the largest difference first."""
    names, graded = images.first.names, images.first.graded
    assert graded is not None
    for place in places[np.argsort(-np.abs(others - ones)[places], kind="stable")].tolist():
        has = [name for name, is_there in zip(graded.classes, graded.has[place], strict=True) if is_there]
        yield ChangedImage(
            place=place,
            name=names[place] if names else "",
            label=", ".join(has),
            before=told[0][place],
            after=told[1][place],
            grades=(float(ones[place]), float(others[place])),
        )
