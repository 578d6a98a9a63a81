"""The order of classes that stand in a file as labels. Light."""

from __future__ import annotations

from collections.abc import Iterable


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once: by number where all of them are numbers, else by name."""
    each = set(names)
    key = int if all(name.isascii() and name.isdigit() for name in each) else str
    return tuple(sorted(each, key=lambda name: (key(name), name)))
