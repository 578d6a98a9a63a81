"""Layers that a recipe names, to be left as they are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase

from edgeopt.errors import NothingChangedError, Problem, did_you_mean


def named(
    layers: Collection[str], patterns: Sequence[str], kinds: Mapping[str, Collection[str]] | None = None
) -> set[str]:
    """Those of `layers` that `patterns` name: a layer, a module around it, a pattern such as "features.*", or one of `kinds`.

    Raises `NothingChangedError` for each pattern that fits none.
    """
    found: set[str] = set()
    problems = []
    for pattern in patterns:
        fitting = set((kinds or {}).get(pattern, ()))
        fitting |= {name for name in layers if any(fnmatchcase(place, pattern) for place in _places(name))}
        if not fitting:
            known = {place for name in layers for place in _places(name)}
            message = f"protect: no layer that could be pruned is named {pattern!r}"
            problems.append(Problem(message, did_you_mean(pattern, known), option="protect"))
        found |= fitting
    if problems:
        raise NothingChangedError(*problems)
    return found


def _places(name: str) -> list[str]:
    """A layer and all modules around it: "a.b.c" is in "a.b.c", "a.b" and "a"."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
