"""Help pages in rich, from typer's own records.

typer's rich pages import Markdown and traceback renderers: 0.1 s that `--help` and every mistyped option would pay.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    """A command with our help page."""

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 — typer's signature
        _print_help(self, ctx)


class Group(TyperGroup):
    """A group of commands with our help page; commands stand in the order in which they were declared."""

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 — typer's signature
        _print_help(self, ctx)


def _print_help(command: Command | Group, context: Any) -> None:
    """Prints usage, description, and one table each of arguments, options and commands."""
    from rich.text import Text  # rich, only when help is wanted

    from edgeopt.cli.consoles import stdout

    console = stdout()
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    console.print(Text.assemble(("usage: ", "bold"), usage), soft_wrap=True)
    console.print()
    paragraphs = (command.help or "").split("\n\n")
    console.print("\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs), markup=False)
    parameters = command.get_params(context)
    for title, kind in (("arguments", "argument"), ("options", "option")):
        records = (parameter.get_help_record(context) for parameter in parameters if parameter.param_type_name == kind)
        _print_rows(title, [record for record in records if record])
    if isinstance(command, Group):
        commands = ((name, command.get_command(context, name)) for name in command.list_commands(context))
        _print_rows("commands", [(name, each.get_short_help_str(200)) for name, each in commands if each])
    if command.epilog:
        console.print(f"\n{command.epilog}", style="dim", markup=False)


def _print_rows(title: str, rows: Iterable[tuple[str, str]]) -> None:
    from rich.table import Table  # rich, only when help is wanted
    from rich.text import Text

    from edgeopt.cli.consoles import stdout

    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column()
    for name, text in rows:
        table.add_row(Text(f"  {name}"), Text(text))
    if table.row_count:
        console = stdout()
        console.print(f"\n{title}", style="bold")
        console.print(table)
