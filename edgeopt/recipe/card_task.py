"""The task of a finished file, by its card. Light."""

from __future__ import annotations

from edgeopt.cards.card import Card
from edgeopt.errors import Problem, UserError, first_line
from edgeopt.plugins.declarations import TaskPlugin
from edgeopt.plugins.registry import Registry
from edgeopt.recipe.lookup import resolve
from edgeopt.tasks.base import Task


def task_of_card(card: Card, registry: Registry, name: str) -> Task:
    """What the file called `name` is for: the task that its card names, with the options of its recipe and with what
    the card says was decided, so that it answers as in its run.

    Raises `UserError` where no plugin here has that task, and for a card that says what no card of it says.
    """
    told = card.recipe.get("task")
    options = dict(told) if isinstance(told, dict) and told.get("use") == card.task else {}
    options.pop("use", None)
    try:
        use = resolve(TaskPlugin, card.task, options, registry)
        return use.plugin.made(use.options).decided(card.decision)
    except UserError as error:
        problems = [Problem(f"{name}: {each.message}", each.hint) for each in error.problems]
        raise UserError(*problems) from error
    except (LookupError, TypeError, ValueError) as error:  # somebody changed the card
        message = f"{name}: `decision` in its card is none of the task {card.task}: {first_line(error)}"
        raise UserError(Problem(message, "export the file again")) from error
