"""The tasks that come with edgeopt itself."""

from __future__ import annotations

from collections.abc import Iterator

from edgeopt.options import Options
from edgeopt.plugins.hookspecs import hookimpl
from edgeopt.plugins.task import TaskPlugin
from edgeopt.tasks.classification import Classification


class ClassificationOptions(Options):
    """The options of `classification`."""


@hookimpl
def edgeopt_tasks() -> Iterator[TaskPlugin]:
    """One label an image."""
    yield TaskPlugin(
        "classification",
        "One of the data set's classes for each image: cross-entropy, top-1 accuracy.",
        ClassificationOptions,
        make=lambda _options: Classification(),
    )
