"""What a task's plugin brings for other languages: files by which the outputs of a file become answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeopt.cards.card import Card
from edgeopt.errors import Problem, UserError
from edgeopt.plugins.registry import Registry
from edgeopt.plugins.task import TaskPlugin

_DOCUMENT = 'see "Where there is no Python" in docs/tasks.md'


@dataclass(frozen=True)
class KotlinPart:
    """The class that answers for a task, and the files that it is in and needs."""

    answering: str
    files: tuple[Path, ...]


def kotlin_part(card: Card, registry: Registry) -> KotlinPart:
    """The Kotlin part of the card's task. Raises `UserError` where there is no such task, or it brings no Kotlin."""
    files = registry.get(TaskPlugin, card.task).kotlin_files
    if not files:
        raise UserError(
            Problem(
                f"the task {card.task} brings no Kotlin, so an app could not tell its answers",
                "let its plugin bring a class that extends Answering: TaskPlugin(kotlin_files=(...)), " + _DOCUMENT,
            )
        )
    return KotlinPart(files[0].stem, files)


def template_of(card: Card, language: str, registry: Registry) -> str:
    """The template of the lines by which outputs become answers of the card's task. Raises `UserError` as
    `kotlin_part` does.
    """
    ending = f".{language}.j2"
    found = [path for path in registry.get(TaskPlugin, card.task).line_templates if path.name.endswith(ending)]
    if not found:
        raise UserError(
            Problem(
                f"the task {card.task} brings no lines in {language}",
                f"let its plugin bring NAME{ending}: TaskPlugin(line_templates=(...)), {_DOCUMENT}",
            )
        )
    return found[0].read_text(encoding="utf-8")
