"""Where commands write: results to stdout, everything else to stderr. Plain when nobody looks, or with NO_COLOR."""

from __future__ import annotations

from rich.console import Console


def stdout() -> Console:
    """The console for results."""
    return Console(highlight=False)


def stderr() -> Console:
    """The console for messages and progress."""
    return Console(stderr=True, highlight=False)
