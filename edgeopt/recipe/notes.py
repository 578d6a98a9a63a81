"""What a recipe may ask for and should think twice about, on this machine; nothing here stops a run."""

from __future__ import annotations

from edgeopt.cores import usable_cores
from edgeopt.recipe.plan import Plan

_THREADS = (("measure", "threads"), ("trainer", "threads"), ("trainer", "loader_workers"))


def notes(plan: Plan) -> tuple[str, ...]:
    """What to tell of a plan before it runs, each with its place in the recipe: more threads than processors."""
    cores, found = usable_cores(), []
    for table, name in _THREADS:
        asked = getattr(getattr(plan.recipe, table), name)
        if asked is not None and asked > cores:
            where = plan.recipe.locate(table, name)
            said = f"{where}: " if where else ""
            found.append(
                f"{said}{table}.{name} = {asked}, and this process may use {cores} processor{'s' * (cores > 1)}: "
                f"they wait for one another, and figures of time are theirs; set it to {cores} at most."
            )
    return tuple(found)
