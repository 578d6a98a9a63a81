"""What the answers of a file say besides its accuracy: whether they are worth anything, and which file is shown."""

from __future__ import annotations

from collections.abc import Sequence

from edgeopt.report.schema import ClassScore, Row
from edgeopt.types import Role


def has_answers(row: Row) -> bool:
    """Whether a file was made and answered the test split."""
    return row.error is None and row.not_run is None and row.test_accuracy is not None


def shown_file(rows: Sequence[Row]) -> Row | None:
    """The file whose answers are shown image by image: the last optimized one that answered, else the last that did."""
    answered = [row for row in rows if has_answers(row)]
    optimized = [row for row in answered if row.role is Role.OPTIMIZED]
    return next(iter(reversed(optimized or answered)), None)


def only_answer(row: Row) -> str | None:
    """The class that a file gives for every test image, where these are of several classes; None for any other file."""
    given = [score.name for score in row.per_class if score.precision is not None]
    asked = [score for score in row.per_class if score.support]
    return given[0] if len(given) == 1 and len(asked) > 1 else None


def never_recognized(row: Row) -> tuple[ClassScore, ...]:
    """The classes with test images of which a file recognized none."""
    return tuple(score for score in row.per_class if score.support and not score.recall)


def most_frequent(row: Row) -> ClassScore | None:
    """The class with the most test images."""
    return max(row.per_class, key=lambda score: score.support, default=None)
