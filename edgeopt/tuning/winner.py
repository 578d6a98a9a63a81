"""The best trial of a study, the front of those that nothing beats, and the files that say so."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from edgeopt.tuning.plan import Study
from edgeopt.tuning.space import changed
from edgeopt.tuning.trials import Ending, Trial
from edgeopt.tuning.written import whole

WINNER, PARETO = "winner.toml", "pareto.csv"


def best(trials: Sequence[Trial]) -> Trial | None:
    """The trial whose first objective is least among those that reach the goal, of equal ones the earliest; where none
    does, the one that comes nearest, one that was trained to its end before others. None where all failed.
    """
    reaching = [each for each in trials if each.reaches_goal]
    if reaching:
        return min(reaching, key=lambda each: (_order(each), each.number))
    able = [each for each in trials if each.ending is not Ending.FAILED]
    return min(
        able,
        key=lambda each: (each.ending in (Ending.REFUSED, Ending.BEATEN), each.excess, _order(each), each.number),
        default=None,
    )


def front(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """The trials that reach the goal and that no other beats in everything that is to be least, by the first of it."""
    able = (each for each in trials if each.ending is Ending.DONE and each.reaches_goal)
    kept: list[Trial] = []
    for each in sorted(able, key=lambda each: (_order(each), each.number)):  # what beats a trial stands before it
        if not any(_beats(other, each) for other in kept):
            kept.append(each)
    return tuple(kept)


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


def front_csv(study: Study, trials: Sequence[Trial]) -> str:
    """`pareto.csv`: a line for each trial of the front, with its values, what is to be least, and its figures."""
    names = [each.name for each in study.space.parameters]
    figures = ["bytes", "latency_ms", "memory_bytes", "agreement", "macs"]
    scores = [kind.name for kind in study.kinds]
    minimize = list(study.settings.least)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", *names, *(f"least {name}" for name in minimize), *figures, *scores])
    for each in front(trials):
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


def _order(trial: Trial) -> tuple[float, ...]:
    return tuple(float("inf") if each is None else each for each in trial.objectives)


def _beats(other: Trial, trial: Trial) -> bool:
    theirs, own = _order(other), _order(trial)
    return all(a <= b for a, b in zip(theirs, own, strict=True)) and theirs != own


def _cell(value: Any) -> Any:
    return "" if value is None else value
