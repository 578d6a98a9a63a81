"""Help pages from typer's own records.

typer's rich pages import Markdown and traceback renderers, and rich itself is a third of the time that `--help` may
take; this is a page of two columns, in the colours that the rest of the command line has.
"""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

_WIDEST = 110


class Command(TyperCommand):
    """A command with our help page."""

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 — typer's signature
        typer.echo(_page(self, ctx), color=colour())


class GroupedCommands(TyperGroup):
    """A group of commands with our help page; commands stand in the order in which they were declared.

    Ctrl-C while typer reads the command line, for which it imports much, ends with a line too.
    """

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 — typer's signature
        typer.echo(_page(self, ctx), color=colour())

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        with _interruption_told():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        with _interruption_told():
            return super().invoke(ctx)


@contextmanager
def _interruption_told() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(130) from None


def colour() -> bool | None:
    """Never where NO_COLOR asks for that, else as typer sees fit: only in terminals."""
    return False if os.environ.get("NO_COLOR") else None


def _page(command: Command | GroupedCommands, context: Any) -> str:
    """Usage, description, and a list each of arguments, options and commands."""
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    parts = [typer.style("usage: ", bold=True) + usage]
    parts += [textwrap.fill(" ".join(each.split()), width) for each in (command.help or "").split("\n\n")]
    parameters = command.get_params(context)
    for title, kind in (("arguments", "argument"), ("options", "option")):
        records = (each.get_help_record(context) for each in parameters if each.param_type_name == kind)
        parts.append(_rows(title, [record for record in records if record], width))
    if isinstance(command, GroupedCommands):
        commands = ((name, command.get_command(context, name)) for name in command.list_commands(context))
        parts.append(
            _rows("commands", [(name, each.get_short_help_str(400)) for name, each in commands if each], width)
        )
    if command.epilog:
        parts.append(typer.style(textwrap.fill(command.epilog, width), dim=True))
    return "\n\n".join(filter(None, parts))


def _rows(title: str, rows: Iterable[tuple[str, str]], width: int) -> str:
    """Names and what they mean, in two columns under a title; nothing for no rows."""
    rows = list(rows)
    if not rows:
        return ""
    column = 4 + max(len(name) for name, _ in rows)
    lines = [typer.style(title, bold=True)]
    for name, meaning in rows:
        first, *rest = textwrap.wrap(meaning, max(width - column, 20)) or [""]
        lines.append(f"  {typer.style(name, fg='cyan')}{' ' * (column - 2 - len(name))}{first}".rstrip())
        lines += [" " * column + line for line in rest]
    return "\n".join(lines)
