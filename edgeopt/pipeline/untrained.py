"""Refuses recipes that would ship a layer that nothing trained."""

from __future__ import annotations

from collections.abc import Sequence

from edgeopt.errors import Problem, RecipeError
from edgeopt.recipe.plan import Plan

_OPTION = "weights"


def require_trained(plan: Plan, untrained: Sequence[str]) -> None:
    """Raises `RecipeError` where a model has parts that its weights did not fill, and no pass of the recipe trains.

    `untrained` names these parts, as `ModelState.untrained` does.
    """
    if not untrained or any(use.plugin.trains for use in plan.passes):
        return
    given = {_OPTION} & plan.model.options.model_fields_set
    raise RecipeError(
        Problem(
            f"{', '.join(map(repr, untrained))} of the model is drawn at random, because the weights are of other "
            "classes, and no pass of this recipe trains: every file would guess",
            "add a pass that trains, such as 'train', or name weights of these classes",
            location=plan.recipe.locate("model", *given),
        )
    )
