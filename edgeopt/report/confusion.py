"""A confusion matrix that fits on a page, however many classes there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

OTHER = "other classes"


@dataclass(frozen=True)
class Condensed:
    """Counts `[true][predicted]` of the classes of `names`; `hidden` classes that fare better are summed in a last
    column.
    """

    names: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    hidden: int

    def share(self, row: int, column: int) -> float:
        """What part of the images of class `row` was taken for `column`, 0 to 1."""
        total = sum(self.counts[row])
        return self.counts[row][column] / total if total else 0.0


@dataclass(frozen=True)
class ConfusedPair:
    """How many images of `true` were taken for `predicted`, out of `support`."""

    true: str
    predicted: str
    count: int
    support: int


def condense(confusion: Sequence[Sequence[int]], classes: Sequence[str], limit: int) -> Condensed:
    """The matrix of all classes, or of the `limit` classes with the most mistakes around them."""
    everything = range(len(classes))
    if len(classes) <= limit:
        return Condensed(tuple(classes), tuple(classes), tuple(tuple(row) for row in confusion), 0)
    mistakes = [
        sum(confusion[index]) + sum(row[index] for row in confusion) - 2 * confusion[index][index]
        for index in everything
    ]
    kept = sorted(sorted(everything, key=lambda index: -mistakes[index])[:limit])
    counts = tuple(
        (
            *(confusion[true][predicted] for predicted in kept),
            sum(confusion[true]) - sum(confusion[true][p] for p in kept),
        )
        for true in kept
    )
    names = tuple(classes[index] for index in kept)
    return Condensed(names, (*names, OTHER), counts, len(classes) - limit)


def worst_pairs(confusion: Sequence[Sequence[int]], classes: Sequence[str], limit: int = 6) -> tuple[ConfusedPair, ...]:
    """The most frequent mistakes, the most frequent first."""
    pairs = [
        ConfusedPair(classes[true], classes[predicted], count, sum(row))
        for true, row in enumerate(confusion)
        for predicted, count in enumerate(row)
        if count and true != predicted
    ]
    return tuple(sorted(pairs, key=lambda pair: -pair.count)[:limit])
