"""The task of a finished file, by its card. Light."""

from __future__ import annotations

from edgeopt.cards.card import Card
from edgeopt.errors import Problem, UserError, first_line
from edgeopt.plugins.declarations import TaskPlugin
from edgeopt.plugins.registry import Registry
from edgeopt.plugins.use import Use
from edgeopt.recipe.lookup import resolve
from edgeopt.tasks.base import Task


def task_of_card(card: Card, registry: Registry, name: str) -> Task:
    """What the file called `name` is for: the task that its card names, with the options of its recipe and with what
    the card says was decided, so that it answers as in its run.

    Raises `UserError` where no plugin here has that task, and for a card that says what no card of it says.
    """
    return decided(task_use_of_card(card, registry, name), card, name)


def task_use_of_card(card: Card, registry: Registry, name: str) -> Use[TaskPlugin]:
    """The plugin of the task with its options, for another process to make the task by `decided`."""
    told = card.recipe.get("task")
    options = dict(told) if isinstance(told, dict) and told.get("use") == card.task else {}
    options.pop("use", None)
    try:
        return resolve(TaskPlugin, card.task, options, registry)
    except UserError as error:
        raise _of_file(error, name) from error


def decided(use: Use[TaskPlugin], card: Card, name: str) -> Task:
    """The task with what the card of the file called `name` says was decided. Raises `UserError` as `task_of_card`."""
    task = use.plugin.made(use.options)
    try:
        return task.decided(card.decision)
    except UserError as error:
        raise _of_file(error, name) from error
    except (LookupError, TypeError, ValueError) as error:  # somebody changed the card
        message = f"{name}: `decision` in its card is none of the task {card.task}: {first_line(error)}"
        raise UserError(Problem(message, "export the file again")) from error


def _of_file(error: UserError, name: str) -> UserError:
    return UserError(*(Problem(f"{name}: {each.message}", each.hint) for each in error.problems))
