"""Trials of a study, as they stand on disk: one line each, added when the trial has ended."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from edgeopt.arrays import Json
from edgeopt.errors import Problem, UserError
from edgeopt.files import write_aside
from edgeopt.json_values import from_text, from_values, to_text, to_values
from edgeopt.tuning.goals import UNKNOWN, Figures, Missed
from edgeopt.tuning.space import Values

FILE = "trials.jsonl"


class Ending(StrEnum):
    """How a trial ended.

    `REFUSED`: the shapes alone cannot keep the goal, so nothing was trained. `REPEATED`: the same recipe as an earlier
    trial, whose figures it has. `BEATEN`: others were ahead of it after a part of its epochs.
    """

    DONE = "done"
    REFUSED = "refused"
    REPEATED = "repeated"
    BEATEN = "beaten"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial: what it gave the parameters, how it ended and what its files reached.

    `objectives` are what is to be least, None where they are not known; `missed` is empty where the goal is reached.
    `reason` says why it was refused, beaten or failed. `rungs` are its scores where it was held against others, and
    `costs` what is to be least as far as its shapes tell. `folder` holds its run, below the study's. `proposer` is what
    the sampler wants to know of it again. `without_bucket` says why its runs gave up a bucket that failed.
    """

    number: int
    values: Values
    ending: Ending
    figures: Figures
    objectives: tuple[float | None, ...] = ()
    missed: tuple[Missed, ...] = ()
    reason: str | None = None
    seconds: float = 0.0
    folder: str | None = None
    rungs: tuple[float, ...] = ()
    costs: tuple[float | None, ...] = ()
    proposer: Mapping[str, Json] = field(default_factory=dict)
    without_bucket: str = ""

    @property
    def reaches_goal(self) -> bool:
        """Whether its files were made, trained and keep every bound."""
        return self.ending in (Ending.DONE, Ending.REPEATED) and not self.missed

    @property
    def excess(self) -> float:
        """How far it is from the goal in all, 0 where it reaches it; of one that was beaten, nobody knows."""
        if self.ending is Ending.BEATEN:
            return UNKNOWN
        return sum(each.excess for each in self.missed)


@dataclass(frozen=True)
class _Head:
    """The first line of the file: which study the trials are of."""

    study: str
    schema: int = 1


class Trials:
    """The trials of a study in `folder`. `study` tells one from another: a file of another one is refused."""

    def __init__(self, folder: Path, study: str) -> None:
        self._file = folder / FILE
        self._study = study
        self._trials = self._read()

    @property
    def all(self) -> Sequence[Trial]:
        """Those that have ended, in their order; it grows with them, for a copy at each trial adds up."""
        return self._trials

    def add(self, trial: Trial) -> None:
        """Keeps a trial; it is on disk when this returns."""
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(to_values(trial)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._trials.append(trial)

    def _read(self) -> list[Trial]:
        try:
            lines = self._file.read_text(encoding="utf-8").splitlines(keepends=True)
        except FileNotFoundError:
            lines = []
        whole = [
            line for line in lines if line.endswith("\n")
        ]  # a kill leaves half a line, of a trial that had not ended
        if not whole:
            write_aside(self._file, json.dumps(json.loads(to_text(_Head(self._study)))) + "\n")
            return []
        try:
            head = from_text(_Head, whole[0])
            trials = [from_values(Trial, json.loads(line)) for line in whole[1:]]
        except (ValueError, UserError) as error:
            hint = "move the folder away, or begin anew with --fresh"
            raise UserError(Problem(f"{self._file} is not readable: {error}", hint)) from error
        if head.study != self._study:
            message = (
                f"{self._file.parent} holds the trials of another study: the recipe, the space or the goal changed"
            )
            raise UserError(Problem(message, "begin anew with --fresh, or name another folder with --out"))
        if len(whole) < len(lines):
            write_aside(self._file, "".join(whole))
        return trials
