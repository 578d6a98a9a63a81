"""Protocols by which long work reports its progress; `workers/display.py` shows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Bar(Protocol):
    """One piece of work of known length."""

    def advance(self, steps: float = 1) -> None:
        """`steps` more are done."""
        ...

    def say(self, text: str) -> None:
        """A short text beside the bar, such as the loss."""
        ...


class Progress(Protocol):
    """Shows work to whoever waits."""

    @contextmanager
    def bar(self, label: str, total: float) -> Iterator[Bar]:
        """A bar that disappears at the end of the block."""
        ...


class _SilentBar:
    def advance(self, steps: float = 1) -> None:
        """Shows nothing."""

    def say(self, text: str) -> None:
        """Shows nothing."""


class Silent:
    """Shows nothing: for libraries and tests."""

    @contextmanager
    def bar(self, label: str, total: float) -> Iterator[Bar]:  # noqa: ARG002 - shown by the others
        """A bar that nobody sees."""
        yield _SilentBar()
