"""`answers.npz`: what each file of a run answered for each test image; `docs/compare.md` describes it.

By it two runs can be compared image by image, whatever size they bring the images to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.errors import Problem, UserError
from edgeopt.files import ARCHIVE_ERRORS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.arrays import Labels

SCHEMA = 1
TOLD_LETTERS = 120
"""An answer in words is kept to so many letters."""
RIGHT_OR_NOT = ("not right", "right")
"""The classes of answers that are none: images are right, and answers are or are not."""
_HINT = "run its recipe again to write it anew"


@dataclass(frozen=True, eq=False)
class Graded:
    """How well images were answered where answers are no classes: by file, `grades`, float32 (n,), are the task's, the
    larger the better, and `told` the answers in words. `has`, bool (n, classes), says which of the data set's `classes`
    each image has; a task without classes has none.
    """

    classes: tuple[str, ...]
    has: NDArray[np.bool_]
    grades: Mapping[str, NDArray[np.float32]]
    told: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class KeptAnswers:
    """The test images of a run and what its files took them for.

    `images`, uint64 (n,), tells each image as it was before preprocessing, `labels`, int64 (n,), are indices into
    `classes`, and so are the `answers`, int64 (n,), of each file by its path below the run's folder. `names` are those
    that a person finds the images by, empty where the data set has none. Where answers are no classes, they are right
    or not, and `graded` has more of them.
    """

    classes: tuple[str, ...]
    images: NDArray[np.uint64]
    labels: Labels
    answers: Mapping[str, Labels] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    graded: Graded | None = None

    def write(self, path: Path) -> None:
        """Writes them compactly; the same answers give the same bytes."""
        smallest = np.min_scalar_type(max(len(self.classes) - 1, 0))
        said = {"schema": SCHEMA, "classes": self.classes, "names": self.names, "files": list(self.answers)}
        more: dict[str, Any] = {}
        if self.graded is not None:
            said |= {"graded": self.graded.classes, "told": list(self.graded.told.values())}
            more = {
                "grades": np.stack([*self.graded.grades.values()] or [np.empty(0, np.float32)]),
                "has": self.graded.has,
            }
        table = np.zeros((len(self.answers), len(self.labels)), dtype=smallest)
        for place, answers in enumerate(self.answers.values()):
            table[place] = answers
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                said=np.frombuffer(json.dumps(said).encode(), dtype=np.uint8),
                images=self.images,
                labels=self.labels.astype(smallest),
                answers=table,
                **more,
            )

    @staticmethod
    def read(path: Path) -> KeptAnswers:
        """Reads what `write` wrote.

        Raises `UserError` for a file that is damaged, or of a schema that this version does not know.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                said = json.loads(arrays["said"].tobytes())
                if said["schema"] != SCHEMA:
                    hint = "compare with the version of edgeopt that wrote it, or run its recipe again"
                    raise UserError(Problem(f"{path} is of schema {said['schema']!r}, not {SCHEMA}", hint))
                kept = KeptAnswers(
                    tuple(said["classes"]),
                    arrays["images"].astype(np.uint64),
                    arrays["labels"].astype(np.int64),
                    dict(zip(said["files"], arrays["answers"].astype(np.int64), strict=True)),
                    tuple(said["names"]),
                    _graded(said, arrays) if "graded" in said else None,
                )
        except (OSError, TypeError, *ARCHIVE_ERRORS) as error:
            raise UserError(Problem(f"{path} is damaged: {error}", _HINT)) from error
        kept._require_whole(path)
        return kept

    def _require_whole(self, path: Path) -> None:
        """Raises `UserError` where its parts do not fit each other."""
        count = len(self.images)
        fits = all(len(each) == count for each in (self.labels, *self.answers.values()))
        known = all(int(each.max(initial=-1)) < len(self.classes) for each in (self.labels, *self.answers.values()))
        if self.graded is not None:
            counts = [
                len(self.graded.has),
                *map(len, self.graded.grades.values()),
                *map(len, self.graded.told.values()),
            ]
            fits = fits and set(counts) == {count}
            fits = fits and self.graded.has.shape[1:] == (len(self.graded.classes),)
        if not fits or not known or len(self.names) not in (0, count):
            raise UserError(Problem(f"{path} is damaged: its parts do not fit each other", _HINT))


def _graded(said: Mapping[str, Any], arrays: Mapping[str, Any]) -> Graded:
    """What `KeptAnswers.write` wrote of grades."""
    files = said["files"]
    return Graded(
        tuple(said["graded"]),
        arrays["has"].astype(bool),
        dict(zip(files, arrays["grades"].astype(np.float32), strict=bool(files))),
        dict(zip(files, map(tuple, said["told"]), strict=True)),
    )
