"""Refuses recipes that would ship a layer that nothing trained, or train a network that an exporter does not take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from edgeopt.errors import Problem, RecipeError
from edgeopt.plugins.blame import blamed
from edgeopt.recipe.plan import Plan
from edgeopt.types import TORCH

if TYPE_CHECKING:
    from edgeopt.types import ModelState, Split

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


def require_taken(plan: Plan, state: ModelState, split: Split) -> None:
    """Raises `RecipeError`, at their lines, with what the recipe's exporters refuse of the network as it was built.

    `split` gives images of the network's size, and none of its labels is read.
    """
    asked = {each.step: each.use for each in plan.exports if each.use.plugin.refuses is not None}
    if not asked or state.framework != TORCH:
        return
    from edgeopt.networks.capture import to_program  # torch is heavy, and the runner imports this module

    program = to_program(state, split)
    problems = []
    for step, use in asked.items():
        assert use.plugin.refuses is not None  # these alone are asked
        with blamed(use.plugin, "refuses"):
            found = list(use.plugin.refuses(program, use.options))
        line = plan.recipe.locate("exports", step)
        problems += [replace(each, location=each.location or line) for each in found]
    if problems:
        raise RecipeError(*problems)
