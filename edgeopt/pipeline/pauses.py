"""Where a run pauses, so that others may be compared with it before it goes on. Light."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeopt.recipe.plan import Plan
from edgeopt.recipe.stage import StageKind


@dataclass(frozen=True)
class Pause:
    """Once `share` of the epochs of all trainings are done, 0 to 1; passes before number `first` do not count."""

    share: float
    first: int = 0


def pauses_of(plan: Plan, pause: Pause | None) -> Mapping[str, int]:
    """The stage that pauses, and after how many of its epochs; empty where trainings are too short for it."""
    if pause is None:
        return {}
    trainings = [
        (stage.name, epochs)
        for stage in plan.stages.values()
        if stage.kind is StageKind.PASS and stage.index >= pause.first
        if (epochs := trained_epochs(plan, stage.index)) > 0
    ]
    due = max(1, round(pause.share * sum(epochs for _, epochs in trainings)))
    for name, epochs in trainings:
        if due < epochs:
            return {name: max(1, due)}
        due -= epochs
    return {}


def trained_epochs(plan: Plan, index: int) -> int:
    """How many epochs a pass trains; 0 for one that does not."""
    use = plan.passes[index]
    epochs = plan.budget.of(plan.budget.epochs, getattr(use.options, "epochs", 0))
    return epochs if use.plugin.trains else 0
