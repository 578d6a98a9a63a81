"""What a plugin declares of a task: what a model is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from edgeopt.errors import PluginError
from edgeopt.plugins.base import Plugin
from edgeopt.plugins.blame import blamed
from edgeopt.tasks.base import Task


@dataclass(frozen=True)
class TaskPlugin(Plugin):
    """What models are for: `make(options)` gives the `Task`, which says what its data, loss, scores and answers are.

    A task is a frozen dataclass of plain values, of a class that its module names: results in the store tell it by
    both. `make` imports nothing heavy, because `edgeopt check` asks a task for its scores.

    By files of the plugin's package, outputs become answers where there is no Python. `kotlin_files` go into apps: the
    first one is named after its class, which extends `Answering`, and needs the others. `line_templates` end the lines
    that `edgeopt card --lang` prints: `NAME.LANGUAGE.j2`, one a language. See `docs/tasks.md`; without them apps and
    lines are refused for files of the task.
    `page_files` are JavaScript for pages in which files answer by themselves: the first is imported, and finds the
    others beside it. It exports `answer(outputs, card)` and `alike(one, other)`. Without it such a page leaves files of
    the task out; a server asks `Task.drawings`.

    `device_modules` go to devices that have Python and no edgeopt, as they are: they import the standard library, NumPy
    and one another alone. The first has `answers(outputs, decision)`, which gives what `Task.decode` does of the task
    whose `decision` a card has. Without them the whole way of an image is not timed there.
    """

    kind: ClassVar[str] = "task"
    plural: ClassVar[str] = "tasks"
    hook: ClassVar[str] = "edgeopt_tasks"
    header: ClassVar[str] = "[task]"

    make: Callable[[Any], Task] = field(kw_only=True)
    kotlin_files: tuple[Path, ...] = ()
    line_templates: tuple[Path, ...] = ()
    page_files: tuple[Path, ...] = ()
    device_modules: tuple[str, ...] = ()

    def made(self, options: Any) -> Task:
        """What `make` gives. Raises `PluginError` where that is no task of this name."""
        with blamed(self, "make"):
            task = self.make(options)
        if not isinstance(task, Task) or task.name != self.name:
            given = f"one called {task.name!r}" if isinstance(task, Task) else f"a {type(task).__name__}"
            raise PluginError(f"task {self.name!r} made {given}", hint="let it give a Task of its own name")
        return task
