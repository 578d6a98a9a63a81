"""Which trials are worth the rest of their epochs: successive halving, one trial after the other, in their order.

A trial pauses at each rung and is compared with the trials that were there before it. One that costs more is to be
better than one that costs less, so a trial is held against those alone that cost no more than itself, as far as their
shapes tell: the smallest file so far always goes on. The last thousand that stood at a rung are enough to tell which
share is the best, and what each trial is handed stays small, however long the study is.

Source: L. Li et al., "A System for Massively Parallel Hyperparameter Tuning" (ASHA), MLSys 2020; the rule is that of
its asynchronous halving, with a trial that is stopped never taken up again.
"""

from __future__ import annotations

import json
import math
import shutil
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeopt.errors import UserError
from edgeopt.files import write_aside
from edgeopt.json_values import from_text, to_text
from edgeopt.tasks.scores import ScoreKind
from edgeopt.tuning.trials import Ending, Trial

_MOST_RIVALS = 1000


@dataclass(frozen=True)
class Rival:
    """What others are held against of a trial: its scores at the rungs, and what its shapes cost."""

    rungs: tuple[float, ...]
    costs: tuple[float | None, ...]


class Rivals:
    """Those of a study, the last ones, as its trials become known."""

    def __init__(self) -> None:
        self._last: deque[Rival] = deque(maxlen=_MOST_RIVALS)

    def meet(self, trial: Trial) -> None:
        """One more trial is known."""
        if trial.rungs and trial.ending is not Ending.REPEATED:
            self._last.append(Rival(trial.rungs, trial.costs))

    @property
    def all(self) -> tuple[Rival, ...]:
        """They, in the order of their trials."""
        return tuple(self._last)


@dataclass(frozen=True)
class Rung:
    """What a trial had reached on validation images after `epochs`."""

    epochs: int
    score: float


@dataclass(frozen=True)
class _Pending:
    """The rungs of a trial that is on its way; `trial` tells it from others."""

    trial: str
    rungs: tuple[Rung, ...]


@dataclass(frozen=True)
class RungFiles:
    """Where a study, whose folder is `folder`, keeps how far each trial on its way had come when it was compared.

    A study that is killed when a trial has trained on compares it again as it was.
    """

    folder: Path

    def read(self, trial: Trial) -> tuple[Rung, ...]:
        """The rungs that `trial` has stood at; none where the file is of another one of its number."""
        try:
            pending = from_text(_Pending, self._file(trial.number).read_text(encoding="utf-8"))
        except (OSError, ValueError, UserError):
            return ()
        return pending.rungs if pending.trial == _named(trial) else ()

    def write(self, trial: Trial, rungs: tuple[Rung, ...]) -> None:
        """Keeps the rungs of `trial`; they are on disk when this returns."""
        write_aside(self._file(trial.number), to_text(_Pending(_named(trial), rungs)))

    def forget(self, number: int | None = None) -> None:
        """Removes the file of trial `number`, or those of all, where there are any."""
        if number is None:
            shutil.rmtree(self._folder, ignore_errors=True)
        else:
            self._file(number).unlink(missing_ok=True)

    @property
    def _folder(self) -> Path:
        return self.folder / "rungs"

    def _file(self, number: int) -> Path:
        return self._folder / f"{number}.json"


def _named(trial: Trial) -> str:
    return json.dumps([trial.number, dict(trial.values)], sort_keys=True)


def beaten(trial: Trial, earlier: Sequence[Rival], keep: float, kind: ScoreKind) -> str | None:
    """Why a trial is not trained on, in words; None where it goes on.

    It stands at the last of its `rungs`. Of those that were there, itself among them, and cost no more than it does,
    the best `keep` go on, at least one; of equal ones, the earlier.
    """
    rung = len(trial.rungs) - 1
    rivals = [other.rungs[rung] for other in earlier if len(other.rungs) > rung and _costs_no_more(other, trial)]
    score = trial.rungs[rung]
    ahead = sorted((kind.rank(each), each) for each in rivals if kind.rank(each) >= kind.rank(score))
    places = max(1, math.floor(keep * (len(rivals) + 1)))
    if len(ahead) < places:
        return None
    last = ahead[-places][1]
    what = f"{len(ahead)} of {len(rivals)} trials that cost no more are at least as good"
    return f"{kind.name} {kind.text(score)}, and it takes {kind.text(last)} to go on: {what}"


def _costs_no_more(some: Rival, other: Trial) -> bool:
    pairs = zip(some.costs, other.costs, strict=True)
    return all(mine is None or its is None or mine <= its for mine, its in pairs)
