"""The best trial of a study, the front of those that nothing beats, and the files that say so.

Both are known as trials end, one by one: looked for anew at each end, they would take a long study most of its time.
"""

from __future__ import annotations

import csv
import io
from bisect import insort
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from edgeopt.tuning.goals import COSTS
from edgeopt.tuning.plan import Study
from edgeopt.tuning.space import changed
from edgeopt.tuning.trials import Ending, Trial
from edgeopt.tuning.written import whole

WINNER, PARETO = "winner.toml", "pareto.csv"


class Leaders:
    """The best of the trials that were added, and their front."""

    def __init__(self, trials: Iterable[Trial] = ()) -> None:
        self._best: Trial | None = None
        self._front: dict[tuple[float, ...], list[Trial]] = {}  # by what is to be least: many may have the same
        for each in trials:
            self.add(each)

    def add(self, trial: Trial) -> None:
        """One more trial has ended."""
        if trial.ending is not Ending.FAILED and (self._best is None or _rank(trial) < _rank(self._best)):
            self._best = trial
        if trial.ending is not Ending.DONE or not trial.reaches_goal:
            return
        order = _order(trial)
        if order not in self._front:
            if any(_beats(other, order) for other in self._front):
                return
            self._front = {other: them for other, them in self._front.items() if not _beats(order, other)}
        insort(self._front.setdefault(order, []), trial, key=lambda each: each.number)

    @property
    def best(self) -> Trial | None:
        """The trial whose first objective is least among those that reach the goal, of equal ones the earliest; where
        none does, the one that comes nearest, one that was trained to its end before others. None where all failed.
        """
        return self._best

    @property
    def front(self) -> tuple[Trial, ...]:
        """The trials that reach the goal and that no other beats in everything that is to be least, by the first of
        it.
        """
        return tuple(trial for order in sorted(self._front) for trial in self._front[order])


def best(trials: Iterable[Trial]) -> Trial | None:
    """The best of some trials, as `Leaders` has it."""
    return Leaders(trials).best


def front(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    """The front of some trials, as `Leaders` has it."""
    return Leaders(trials).front


def winner_recipe(study: Study, trial: Trial) -> dict[str, Any]:
    """The recipe of a trial as plain values: what the study's recipe asks for besides, gates and trackers too."""
    values = changed(whole(study.recipe), study.space, trial.values)
    return {**values, "name": f"{study.recipe.name[:90].rstrip('-')}-winner"}


def winner_text(study: Study, trial: Trial, trials: int) -> str:
    """`winner.toml`: a recipe that can be run like any other."""
    from tomli_w import dumps  # only where one is written

    reached = (
        "reaches the goal" if trial.reaches_goal else f"is the nearest to the goal, which it misses: {misses(trial)}"
    )
    what = ", ".join(f"{name} = {value!r}" for name, value in trial.values.items())
    return (
        f"# Trial {trial.number} of {trials}, chosen on validation images by `edgeopt tune`; it {reached}.\n"
        f"# {what}\n\n{dumps(winner_recipe(study, trial))}"
    )


def misses(trial: Trial) -> str:
    """The bounds that a trial does not keep, in words."""
    return "; ".join(each.told for each in trial.missed)


def front_csv(study: Study, trials: Iterable[Trial]) -> str:
    """`pareto.csv`: a line for each trial of a front, with its values, what is to be least, and its figures."""
    names = [each.name for each in study.space.parameters]
    figures = [*COSTS, "agreement", "macs"]
    scores = [kind.name for kind in study.kinds]
    minimize = list(study.settings.least)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", *names, *(f"least {name}" for name in minimize), *figures, *scores])
    for each in trials:
        values = [_cell(each.values.get(name)) for name in names]
        writer.writerow(
            [
                each.number,
                *values,
                *each.objectives,
                *(each.figures.of(name) for name in figures),
                *(each.figures.scores.get(name) for name in scores),
            ]
        )
    return text.getvalue()


def so_far(trials: Sequence[Trial]) -> Iterator[tuple[int, float]]:
    """The least first objective among trials that reach the goal, as trials end: (trial, figure) at each change."""
    least = float("inf")
    for each in trials:
        if each.reaches_goal and each.objectives and each.objectives[0] is not None and each.objectives[0] < least:
            least = each.objectives[0]
            yield each.number, least


def _rank(trial: Trial) -> tuple[bool, bool, float, tuple[float, ...], int]:
    """The best trial has the least."""
    is_whole = trial.ending not in (Ending.REFUSED, Ending.BEATEN)
    return (not trial.reaches_goal, not is_whole, trial.excess, _order(trial), trial.number)


def _order(trial: Trial) -> tuple[float, ...]:
    return tuple(float("inf") if each is None else each for each in trial.objectives)


def _beats(theirs: tuple[float, ...], own: tuple[float, ...]) -> bool:
    return theirs != own and all(a <= b for a, b in zip(theirs, own, strict=True))


def _cell(value: Any) -> Any:
    return "" if value is None else value
