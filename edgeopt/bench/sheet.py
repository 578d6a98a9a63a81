"""A table in the terminal that is never cut: where it is too wide, its columns go on in another one below."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_NO_WIDTH = 10_000
_LEAST_NAME = 14  # characters, beyond which a name is broken where it would take a third of the width


@dataclass(frozen=True)
class Sheet:
    """Rows whose first cells, under `keys`, say what they are of, and whose others, under `values`, stand in as many
    tables as the terminal's width asks for. The first key is text, all else are figures.
    """

    keys: tuple[str, ...]
    values: tuple[str, ...]
    rows: list[tuple[str | Text, ...]] = field(default_factory=list)

    def add(self, *cells: str | Text) -> None:
        """Adds a row; cells that are left out at its end are empty."""
        missing = len(self.keys) + len(self.values) - len(cells)
        self.rows.append((*cells, *[""] * missing))

    def print(self, console: Console) -> None:
        """Prints the tables."""
        for table in self._tables(console):
            console.print(table)

    def _tables(self, console: Console) -> Iterator[Table]:
        """As few tables as fit, each with the keys; a value that no width takes has one to itself."""
        columns = [*range(len(self.keys), len(self.keys) + len(self.values))]
        while columns:
            taken = columns[:1]
            for column in columns[1:]:
                wider = self._table([*taken, column], console.width)
                if Measurement.get(console, console.options.update(max_width=_NO_WIDTH), wider).maximum > console.width:
                    break
                taken.append(column)
            yield self._table(taken, console.width)
            columns = columns[len(taken) :]

    def _table(self, columns: Sequence[int], width: int) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        headers, keys = (*self.keys, *self.values), range(len(self.keys))
        table.add_column(headers[0], overflow="fold", max_width=max(_LEAST_NAME, width // 3))
        for column in [*keys[1:], *columns]:
            table.add_column(headers[column], justify="right", no_wrap=True)
        for row in self.rows:
            table.add_row(*(row[column] for column in [*keys, *columns]))
        return table
