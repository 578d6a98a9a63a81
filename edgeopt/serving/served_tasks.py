"""The tasks of the files that are served, as their cards say them."""

from __future__ import annotations

from collections.abc import Sequence

from edgeopt.errors import Problem, UserError
from edgeopt.plugins.declarations import TaskPlugin
from edgeopt.plugins.registry import Registry
from edgeopt.plugins.use import Use
from edgeopt.recipe.card_task import decided, task_use_of_card
from edgeopt.report.finished_files import FinishedFile
from edgeopt.tasks.classification import Classification


def task_uses(files: Sequence[FinishedFile], registry: Registry) -> dict[str, Use[TaskPlugin]]:
    """The task of each file by the file's name.

    Raises `UserError` with every problem: a task that no plugin here has, a card that cannot be followed, a classifier
    without classes.
    """
    problems: list[Problem] = []
    uses: dict[str, Use[TaskPlugin]] = {}
    for file in files:
        try:
            uses[file.name] = task_use_of_card(file.card, registry, file.name)
            task = decided(uses[file.name], file.card, file.name)
        except UserError as error:
            problems += error.problems
            continue
        if isinstance(task, Classification) and not file.card.classes:
            message = f"{file.name} is a classifier, and its card names no classes"
            problems.append(
                Problem(message, "leave it out; `edgeopt card` says how an app feeds it and reads its outputs")
            )
    if problems:
        raise UserError(*problems)
    return uses
