"""Whether files can end where the options of their exporter say: at outputs, or at answers that the task knows of."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from edgeopt.errors import Location, Problem
from edgeopt.options import ExporterOptions
from edgeopt.plugins.declarations import DatasetPlugin, ExporterPlugin, TaskPlugin
from edgeopt.plugins.use import Use
from edgeopt.tasks.base import Task
from edgeopt.tasks.endings import OUTPUTS

if TYPE_CHECKING:
    from edgeopt.recipe.lookup import Lookup


def ends_of(options: object) -> str:
    """Where a file with these options ends: `OUTPUTS`, or what its task makes of them."""
    return options.ends if isinstance(options, ExporterOptions) else OUTPUTS


def problem_of_ending(use: Use[ExporterPlugin], task: Task, classes: int | None) -> Problem | None:
    """Why an exporter's files cannot end where its options say; `classes` is how many the data set has, None where
    nobody knows yet.
    """
    name = ends_of(use.options)
    if name == OUTPUTS:
        return None
    if name not in task.endings:
        there = " or ".join(f'"{each}"' for each in (OUTPUTS, *task.endings))
        message = f'files of the task {task.name} do not end at "{name}"'
        return Problem(message, f"ends = {there}", option="ends")
    if (why := task.ending(name).refused(use.plugin.tails, classes)) is None:
        return None
    message = f'a file of exporter {use.plugin.name!r} cannot end at "{name}": {why}'
    return Problem(message, "leave `ends` out: the file ends at its outputs, and its card says the rest", option="ends")


def check_endings(
    lookup: Lookup,
    exporters: Sequence[Use[ExporterPlugin] | None],
    use: Use[TaskPlugin] | None,
    dataset: Use[DatasetPlugin] | None,
) -> None:
    """Notes exports whose files cannot end where they should, at their lines."""
    if use is None:
        return
    task = use.plugin.made(use.options)
    classes = None if dataset is None or dataset.options.classes is None else len(dataset.options.classes)
    for index, export in enumerate(exporters):
        if export is not None and (problem := problem_of_ending(export, task, classes)) is not None:
            lookup.problems.append(problem.at(partial(_locate, lookup, index)))


def _locate(lookup: Lookup, index: int, *key: str | int) -> Location | None:
    return lookup.source.locate(("exports", index, *key))
