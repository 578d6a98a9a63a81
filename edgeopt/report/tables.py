"""Pieces of what commands print, alike in every command: tables, and sentences below them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

QUIET = "dim"
"""The style of what is read last."""


@dataclass(frozen=True)
class Unsqueezed:
    """A table that a window narrower than `narrowest` letters does not squeeze: figures are never cut, and such a
    window wraps whole lines instead.
    """

    table: Table
    narrowest: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(self.table, options.update_width(max(options.max_width, self.narrowest)))


def plain_table() -> Table:
    """An empty table with a line below its header."""
    return Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", show_edge=False)


def bullets(sentences: Sequence[str]) -> Table:
    """Sentences whose further lines are indented under the first."""
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, style=QUIET)
    table.add_column(overflow="fold")
    for sentence in sentences:
        table.add_row("•", Text(sentence))
    return table
