"""Whether right answers to labelled images are more than a guess gives: decided here, and said in one way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from edgeopt.tasks.statistics import wilson_interval

if TYPE_CHECKING:
    from edgeopt.arrays import Labels, Logits


class GuessKind(Enum):
    """In what way answers are a guess: one class for all images, or no more right answers than chance gives, or than
    the most frequent class gives, or answers no better than the best one for all images.
    """

    ONE_CLASS = auto()
    CHANCE = auto()
    MOST_FREQUENT = auto()
    CONSTANT = auto()


@dataclass(frozen=True)
class Guess:
    """Answers that are no more than a guess: `right` of `images` images, which are of `classes` classes.

    `name` is the class that is given for all of them, or the most frequent one. A task without classes says 0 of them,
    and in `name` the answer that is given, or that would be as good, for all images.
    """

    kind: GuessKind
    right: int
    images: int
    classes: int
    name: str

    def told(self, images: str = "images") -> str:
        """What whoever answered did, as the end of a sentence about it; `images` says which images they are."""
        if self.kind is GuessKind.ONE_CLASS:
            return f"answers {self.name!r} for all of {self.images} {images}"
        if self.kind is GuessKind.CONSTANT:
            return f"is no better for {self.images} {images} than answering {self.name!r} for each"
        right = f"is right for {self.right} of {self.images} {images}"
        if self.kind is GuessKind.CHANCE:
            return f"{right}, no better than guessing among {self.classes} classes"
        return f"{right}, no better than naming {self.name!r}, the most frequent class, for each"


def guess_of(right: int, asked: Sequence[int], names: Sequence[str], only: int | None = None) -> Guess | None:
    """Judges `right` answers to as many images of each class as `asked` says; None where they are more than a guess.

    Chance is within the 95 % interval of what was right, for classes that were asked. `names` are those of all
    classes, and `only` is the place of the one that was given for every image, if it was one. Images of a single class
    tell nothing apart, and give None.
    """
    images, classes = sum(asked), sum(map(bool, asked))
    if classes < 2:
        return None
    frequent = max(range(len(asked)), key=asked.__getitem__)
    if only is not None:
        return Guess(GuessKind.ONE_CLASS, right, images, classes, names[only])
    if wilson_interval(right, images)[0] <= 1 / classes:
        return Guess(GuessKind.CHANCE, right, images, classes, names[frequent])
    if right <= asked[frequent]:
        return Guess(GuessKind.MOST_FREQUENT, right, images, classes, names[frequent])
    return None


def guess_in(logits: Logits, labels: Labels, names: Sequence[str]) -> Guess | None:
    """Judges logits, float (n, classes), against labels, int64 (n,), as `guess_of` does."""
    import numpy as np  # heavy; whoever has logits has imported it

    given = logits.argmax(axis=1)
    distinct = np.unique(given)
    asked: list[int] = np.bincount(labels, minlength=len(names)).tolist()
    return guess_of(int((given == labels).sum()), asked, names, only=int(distinct[0]) if len(distinct) == 1 else None)
