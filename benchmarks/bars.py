"""How every benchmark ends: a line for each bar, and exit code 1 when one is missed."""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """A figure and the most, or with `at_least` the least, that it may be."""

    name: str
    figure: float
    limit: float
    at_least: bool = False

    @property
    def is_reached(self) -> bool:
        """Whether the figure keeps to its limit."""
        return self.figure >= self.limit if self.at_least else self.figure <= self.limit


def finish(*bars: Bar) -> None:
    """Prints the bars and leaves, with 1 when one is missed."""
    for bar in bars:
        print(f"bar {bar.name}: {bar.figure:.3g} (limit {bar.limit:g})")
    sys.exit(0 if all(bar.is_reached for bar in bars) else 1)
