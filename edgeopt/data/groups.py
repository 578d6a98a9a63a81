"""Splits that keep groups together: images of one speaker, patient or place are all on one side.

A model that has heard a speaker recognizes the voice as well as the word, so files drawn one by one make a test look
better than it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.errors import DataError, Problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.arrays import Labels

    Counts = NDArray[np.int64]

_OTHERWISE = "add images of other groups, leave the class out of `classes`, or give the data set splits of its own"


def draw_groups(
    groups: Sequence[str], labels: Labels, classes: Mapping[int, str], shares: Mapping[str, float], seed: int
) -> dict[str, frozenset[str]]:
    """The groups that each split of `shares` takes, so that its share of the images is met as well as whole groups
    can.

    `groups` and `labels` (n,) are those of all images; `classes` names those labels that every split must have, train
    too. Groups come in an order that follows from the seed and their names alone.

    Raises `DataError` when too few groups have images of a class.
    """
    names, places = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    counts = np.zeros((len(names), int(labels.max()) + 1), dtype=np.int64)
    np.add.at(counts, (places, labels), 1)
    order = sorted(range(len(names)), key=lambda place: _rank(str(names[place]), seed))
    _require_enough(counts, classes, shares)
    draw = _Draw(counts, order, classes)
    taken = {
        name: draw.take(name, share * len(labels), len(shares) - later)
        for later, (name, share) in enumerate(shares.items())
    }
    return {name: frozenset(str(names[place]) for place in chosen) for name, chosen in taken.items()}


class _Draw:
    """Groups, by their place; those in `free` belong to no split yet."""

    def __init__(self, counts: Counts, order: list[int], classes: Mapping[int, str]) -> None:
        self.counts = counts  # images (groups, labels)
        self.order = order
        self.classes = classes
        self.has = counts[:, list(classes)] > 0  # (groups, classes)
        self.free = np.ones(len(counts), dtype=bool)

    def take(self, split: str, wanted: float, splits_left: int) -> list[int]:
        """Groups for one split: first one for each class, then more until `wanted` images are met best."""
        taken: list[int] = []
        for column in np.argsort(self.has.sum(axis=0), kind="stable"):  # the rarest class first
            if not self.has[taken, column].any():
                taken.append(self._first(int(column), split, splits_left))
                self.free[taken[-1]] = False
        for place in self.order:
            together = self.counts[taken].sum() + self.counts[place].sum() / 2
            if together <= wanted and self._spare(place, splits_left):
                taken.append(place)
                self.free[place] = False
        return taken

    def _first(self, column: int, split: str, splits_left: int) -> int:
        for place in self.order:
            if self.has[place, column] and self._spare(place, splits_left):
                return place
        name = list(self.classes.values())[column]
        raise DataError(
            Problem(f"no group with class {name!r} can be spared for the {split} split: others need it", _OTHERWISE)
        )

    def _spare(self, place: int, splits_left: int) -> bool:
        """Whether a free group can go and leave each class one for every split to come, and for train."""
        left = self.has[self.free].sum(axis=0) - self.has[place]
        return bool(self.free[place] and ((left >= splits_left) | ~self.has[place]).all())


def _require_enough(counts: Counts, classes: Mapping[int, str], shares: Mapping[str, float]) -> None:
    """Raises for classes that fewer groups have than there are splits."""
    found = (counts > 0).sum(axis=0)
    few = [f"{name!r} ({found[label]})" for label, name in classes.items() if found[label] <= len(shares)]
    if few:
        raise DataError(
            Problem(
                f"too few groups, such as speakers, to draw train, {' and '.join(sorted(shares))} from: class "
                f"{', '.join(few)}; a group stays whole, so each class needs {len(shares) + 1}",
                _OTHERWISE,
            )
        )


def _rank(name: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed} {name}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
