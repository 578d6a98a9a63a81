"""Tasks in files, and those of edgeopt itself by name."""

from __future__ import annotations

from importlib import import_module

from edgeopt.arrays import Json
from edgeopt.json_values import from_values, to_values
from edgeopt.tasks.base import Task
from edgeopt.tasks.classification import Classification
from edgeopt.tasks.numbers import Numbers

DEFAULT = "classification"
"""The task of data sets and models that name none, and of recipes of these."""

TASKS: dict[str, Task] = {each.name: each for each in (Classification(), Numbers())}
"""The tasks that come with edgeopt, as they are without options."""


def task_to_json(task: Task) -> Json:
    """A task as JSON values: its name where it is one of `TASKS`, else its class and the values of its fields."""
    if TASKS.get(task.name) == task:
        return task.name
    return {"class": f"{type(task).__module__}:{type(task).__qualname__}", "values": to_values(task)}


def task_from_json(values: Json) -> Task:
    """Reads what `task_to_json` gave; the module of its class is imported."""
    if isinstance(values, str):
        return TASKS[values]
    module, _, name = values["class"].partition(":")
    task: Task = from_values(getattr(import_module(module), name), values["values"])
    return task
