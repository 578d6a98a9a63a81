"""The files of two runs, each beside its partner: the one of the same export and role."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.comparison.graded import graded_change, paired_verdict
from edgeopt.comparison.latencies import latency_change, on_devices
from edgeopt.comparison.runs import ReadRun
from edgeopt.comparison.same_data import SameImages
from edgeopt.comparison.schema import (
    AccuracyChange,
    BytesChange,
    ChangedImage,
    ClassChange,
    FileChange,
    Unpaired,
)
from edgeopt.report.schema import Row
from edgeopt.tasks.statistics import bootstrap_interval, holm, paired

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.arrays import Labels

    Chosen = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class RowPair:
    """A row of the first run and its partner in the other."""

    before: Row
    after: Row


def pair_rows(first: ReadRun, other: ReadRun) -> tuple[tuple[RowPair, ...], tuple[Unpaired, ...]]:
    """The rows of both runs by export and role, and those that have no partner. A file that failed is none."""
    made = {(row.export, row.role): row for row in first.report.rows}
    partners = {(row.export, row.role): row for row in other.report.rows}
    pairs: list[RowPair] = []
    alone: list[Unpaired] = []
    for key in dict.fromkeys([*made, *partners]):
        before, after = made.get(key), partners.get(key)
        if before and after and not before.error and not after.error:
            pairs.append(RowPair(before, after))
        else:
            alone += _alone(first, before, other, after)
            alone += _alone(other, after, first, before)
    return tuple(pairs), tuple(alone)


def _alone(run: ReadRun, row: Row | None, other: ReadRun, partner: Row | None) -> Iterator[Unpaired]:
    if row is None:
        return
    if row.error:
        reason = f"it failed: {row.error.strip().splitlines()[0]}"
    elif partner is None:
        reason = f"{other.title} has no file {row.export}, {row.role}"
    else:
        reason = f"it failed in {other.title}"
    yield Unpaired(run=run.title, file=row.file, reason=reason, made=not row.error)


def file_change(first: ReadRun, other: ReadRun, pair: RowPair, images: SameImages | str) -> FileChange:
    """A file and its partner in all figures. `images` are those that both runs answered, or why there are none."""
    before, after = pair.before, pair.after
    reason = images if isinstance(images, str) else _unanswered(first, before) or _unanswered(other, after)
    accuracy = None
    if not isinstance(images, str) and not reason:
        accuracy = (graded_change if images.are_graded else _accuracy)(images, before, after)
    latency, no_latency = latency_change(first, other, before, after)
    return FileChange(
        export=before.export,
        role=before.role,
        file_before=before.file,
        file_after=after.file,
        precision_before=before.precision,
        precision_after=after.precision,
        same_bytes=before.sha256 is not None and before.sha256 == after.sha256,
        accuracy_before=before.test_accuracy,
        accuracy_after=after.test_accuracy,
        accuracy=accuracy,
        no_accuracy=reason or None,
        size=_bytes(before.size_bytes, after.size_bytes),
        memory=_bytes(before.peak_memory_bytes, after.peak_memory_bytes) if latency and latency.ratio else None,
        latency=latency,
        no_latency=no_latency,
        devices=tuple(on_devices(first, other, before, after)),
        score_before=before.score,
        score_after=after.score,
    )


def _unanswered(run: ReadRun, row: Row) -> str:
    """Why a file has no answers; empty where it has."""
    if run.answers and row.file in run.answers.answers:
        return ""
    return f"it was not opened in {run.title}: {row.not_run}" if row.not_run else f"it has no answers in {run.title}"


def _bytes(before: int | None, after: int | None) -> BytesChange | None:
    return BytesChange(before=before, after=after, ratio=after / before) if before and after is not None else None


# ---- accuracy ------------------------------------------------------------------------------------------------------


def _accuracy(images: SameImages, before: Row, after: Row) -> AccuracyChange:
    labels = images.labels
    first, second = images.first.answers[before.file], images.answers_of_other(after.file)
    right_first, right_second = first == labels, second == labels
    lost, gained = right_first & ~right_second, ~right_first & right_second
    counted = paired(len(labels), int(lost.sum()), int(gained.sum()))
    return AccuracyChange(
        before=float(right_first.mean()),
        after=float(right_second.mean()),
        paired=counted,
        interval=bootstrap_interval(counted),
        other_answers=int((first != second).sum()),
        verdict=paired_verdict(counted),
        classes=tuple(_classes(images, right_first, lost, gained)),
        lost=tuple(_changed(images, lost, first, second)),
        gained=tuple(_changed(images, gained, first, second)),
    )


def _classes(images: SameImages, right: Chosen, lost: Chosen, gained: Chosen) -> Iterator[ClassChange]:
    """Every class with test images, in the order of the labels."""
    count = len(images.first.classes)
    sizes, rights, losses, gains = (
        np.bincount(images.labels[chosen], minlength=count).tolist()
        for chosen in (np.ones(len(images.labels), dtype=bool), right, lost, gained)
    )
    tested = [index for index in range(count) if sizes[index]]
    raised = holm([paired(sizes[index], losses[index], gains[index]).p_value for index in tested])
    for index, p_value in zip(tested, raised, strict=True):
        yield ClassChange(
            name=images.first.classes[index],
            images=sizes[index],
            before=rights[index] / sizes[index],
            after=(rights[index] - losses[index] + gains[index]) / sizes[index],
            lost=losses[index],
            gained=gains[index],
            p_value=p_value,
        )


def _changed(images: SameImages, chosen: Chosen, first: Labels, second: Labels) -> Iterator[ChangedImage]:
    classes, names = images.first.classes, images.first.names
    for place in np.flatnonzero(chosen).tolist():
        yield ChangedImage(
            place=place,
            name=names[place] if names else "",
            label=classes[images.labels[place]],
            before=classes[first[place]],
            after=classes[second[place]],
        )
