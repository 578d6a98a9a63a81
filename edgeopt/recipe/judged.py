"""A plan whose files are judged otherwise than those of a run. Light."""

from __future__ import annotations

from dataclasses import replace

from edgeopt.recipe.plan import Plan, stages_of
from edgeopt.recipe.stage import JudgedOn
from edgeopt.types import Role


def judged(plan: Plan, judged_on: JudgedOn, *, measures_fully: bool = False) -> Plan:
    """The same plan whose files are judged on other images, or a smoke run's whose files are measured in full: only
    those that ship, because the float ones beside them are known.
    """
    if judged_on is plan.judged_on and measures_fully == plan.measures_fully:
        return plan
    shipped = [each for each in plan.exports if each.role is Role.OPTIMIZED or not measures_fully] or plan.exports
    exports = tuple(replace(each, number=number) for number, each in enumerate(shipped))
    changed = replace(plan, judged_on=judged_on, measures_fully=measures_fully, exports=exports)
    return replace(changed, stages=stages_of(changed))
