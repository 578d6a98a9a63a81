"""Where a run pauses, so that others may be compared with it before it goes on. Light."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edgeopt.recipe.plan import Plan
from edgeopt.recipe.stage import Stage, StageKind


@dataclass(frozen=True)
class Pause:
    """Once `share` of the epochs of all trainings are done, 0 to 1; passes before number `first` do not count."""

    share: float
    first: int = 0


def pauses_of(plan: Plan, pause: Pause | None) -> Mapping[str, int]:
    """The stage that pauses, and after how many of its epochs; empty where trainings are too short for it."""
    if pause is None:
        return {}
    trainings = [(stage.name, epochs) for stage, epochs in trainings_of(plan) if stage.index >= pause.first]
    due = max(1, round(pause.share * sum(epochs for _, epochs in trainings)))
    for name, epochs in trainings:
        if due < epochs:
            return {name: max(1, due)}
        due -= epochs
    return {}


def trainings_of(plan: Plan) -> Iterator[tuple[Stage, int]]:
    """The stages that train, in their order, each with its epochs."""
    for stage in plan.stages.values():
        if stage.kind is not StageKind.PASS or not plan.passes[stage.index].plugin.trains:
            continue
        epochs = plan.budget.of(plan.budget.epochs, getattr(plan.passes[stage.index].options, "epochs", 0))
        if epochs > 0:
            yield stage, epochs
