"""What the answers of a file say besides its accuracy: whether they are worth anything, and which file is shown."""

from __future__ import annotations

from collections.abc import Sequence

from edgeopt.report.schema import ClassScore, Row
from edgeopt.tasks.guessing import Guess, guess_of
from edgeopt.tasks.scores import ACCURACY
from edgeopt.types import Role


def has_answers(row: Row) -> bool:
    """Whether a file was made and answered the test split."""
    return row.error is None and row.not_run is None and row.score is not None


def shown_file(rows: Sequence[Row]) -> Row | None:
    """The file whose answers are shown image by image: the last optimized one that answered, else the last that did."""
    answered = [row for row in rows if has_answers(row)]
    optimized = [row for row in answered if row.role is Role.OPTIMIZED]
    return next(iter(reversed(optimized or answered)), None)


def guess_in_row(row: Row) -> Guess | None:
    """In what way the answers of a file to the test split are no more than a guess; None where they are more, or there
    are none.
    """
    if row.test_accuracy is None or row.guess is not None:
        return row.guess
    asked = [score.support for score in row.per_class]
    given = [index for index, score in enumerate(row.per_class) if score.precision is not None]
    names = [score.name for score in row.per_class]
    only = given[0] if len(given) == 1 else None
    right = sum(round((score.recall or 0.0) * score.support) for score in row.per_class)
    return guess_of(right, asked, names, only)


def never_recognized(row: Row) -> tuple[ClassScore, ...]:
    """The classes with test images of which a file recognized none."""
    return tuple(score for score in row.per_class if score.support and not score.recall)


def score_called(rows: Sequence[Row]) -> str:
    """What tables call the primary score of the files."""
    return next((row.score.kind.called for row in rows if row.score), ACCURACY.called)
