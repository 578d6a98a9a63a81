"""`edgeopt why --try`: runs a recipe with the lines that may mend a file, beside the run of the file, and compares."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgeopt.comparison.compare import compare_runs
from edgeopt.comparison.runs import ReadRun, read_runs
from edgeopt.comparison.schema import RunComparison
from edgeopt.errors import Problem, UserError
from edgeopt.pipeline.request import RunRequest
from edgeopt.pipeline.runner import run
from edgeopt.recipe.read import Recipe, parse_recipe
from edgeopt.why.request import WhyRequest
from edgeopt.why.run import WhyResult, run_why
from edgeopt.why.table import Advice

if TYPE_CHECKING:  # rich is loaded when something is shown
    from rich.console import Console

_SUFFIX = "-mended"
_LONGEST = 100  # letters of a recipe's name


@dataclass(frozen=True)
class Trial:
    """What lines did: the lines, the runs before and after, held against each other, and the new file looked at."""

    advice: tuple[Advice, ...]
    runs: tuple[ReadRun, ...]
    comparison: RunComparison
    after: WhyResult


def try_advice(request: WhyRequest, before: WhyResult, console: Console | None = None) -> Trial:
    """Runs the recipe of a file with the lines that were found for it, in a folder beside that of its run.

    What the lines do not change, such as the training before it, is taken from the store. Raises `UserError` where no
    line was found, and whatever a run raises.
    """
    chosen = tuple(each for each in before.why.advice if each.key)
    if not chosen:
        hint = "leave --try out: the table and the page say what was found"
        raise UserError(Problem(f"there is no line of a recipe that may mend {request.given}", hint))
    report = before.found.report
    recipe = changed_recipe(report.recipe.resolved, chosen, before.found.row.export)
    wanted = RunRequest(
        recipe,
        smoke=report.smoke,
        devices=False,
        out=before.found.folder.parent,
        plugin_files=request.plugin_files,
    )
    result = run(wanted, console)
    for failure in result.failures:
        raise failure
    runs = read_runs([before.found.folder, result.folder])
    mended = replace(request, given=result.folder / before.found.row.file, out=None)
    return Trial(chosen, runs, compare_runs(runs, plugin_files=request.plugin_files), run_why(mended, console))


def changed_recipe(resolved: Mapping[str, Any], advice: Sequence[Advice], export: str) -> Recipe:
    """A resolved recipe with the changes, of another name and with one of its exports, without gates and trackers."""
    values: dict[str, Any] = copy.deepcopy({name: value for name, value in resolved.items() if name != "gates"})
    values["name"] = f"{values['name'][: _LONGEST - len(_SUFFIX)].rstrip('-')}{_SUFFIX}"
    values["exports"] = [each for each in values["exports"] if each["name"] == export]
    values["trainer"] = {**values.get("trainer", {}), "loggers": []}
    for each in advice:
        place: Any = values
        *parents, last = each.key
        for part in parents:
            place = place[part]
        joined = isinstance(each.value, Mapping) and isinstance(place.get(last), Mapping)
        place[last] = {**place[last], **each.value} if joined else each.value
    return parse_recipe(values)
