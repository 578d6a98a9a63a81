"""What is wrong with annotations: gathered over all files, told at once, or counted where it may be skipped."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from edgeopt.plugins import DataError, Problem

_SHOWN = 5  # of a kind, by name


class Kind(Enum):
    """A kind of mistake: what several of them are called when they are left out, and what to do about one."""

    NOT_NUMBERS = ("boxes whose corners are no numbers", "mend the box, or remove it")
    NO_AREA = ("boxes without area", "a box needs a width and a height above 0: mend it, or remove it")
    OUTSIDE = ("boxes outside their images", "mend the box, or remove it; up to 1 px over the edge is cut off")
    MALFORMED = ("boxes that cannot be read", "write it as the format has it, or remove it")
    NO_CLASS = ("boxes of unknown classes", "add the class, or remove the box")
    DOUBLED = ("boxes that stand there twice", "remove one of them")
    DOUBLED_ID = ("annotations whose id another one has", "give each an id of its own")
    NO_ENTRY = ("annotations of unknown images", "add the image to the list, or remove the annotation")
    NO_IMAGE = ("images that are not there", "put the file back, or remove its annotations")
    UNREADABLE = ("images that cannot be read", "copy the file again")
    NO_SIZE = ("images of unknown size", "say its width and height in px, above 0")


@dataclass
class Findings:
    """Mistakes as they are found; with `skip`, what they concern is left out and counted."""

    skip: bool
    _found: dict[Kind, list[str]] = field(default_factory=dict)
    _refused: list[Problem] = field(default_factory=list)

    def add(self, kind: Kind, message: str) -> None:
        """One more mistake; `message` says where it is and what."""
        self._found.setdefault(kind, []).append(message)

    def refuse(self, problem: Problem) -> None:
        """One more mistake that cannot be skipped."""
        self._refused.append(problem)

    @property
    def count(self) -> int:
        """How many mistakes there are until now."""
        return len(self._refused) + sum(map(len, self._found.values()))

    def settle(self) -> tuple[str, ...]:
        """What was left out, for warnings. Raises `DataError` with everything that was found, unless it is skipped."""
        if not self._refused and (self.skip or not self._found):
            found = self._found.items()
            return tuple(f"{len(each)} {kind.value[0]} were left out, such as {each[0]}" for kind, each in found)
        problems = [*self._refused]
        for kind, each in self._found.items():
            hint = f'{kind.value[1]}; on_error = "skip" goes on without'
            problems += [Problem(message, hint) for message in each[:_SHOWN]]
            if len(each) > _SHOWN:
                problems.append(Problem(f"and {len(each) - _SHOWN} more {kind.value[0]}", hint))
        raise DataError(*problems)
