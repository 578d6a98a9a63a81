"""Layers that a recipe names: by name, by the module around them, or by a pattern."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

from edgeopt.errors import NothingChangedError, Problem, did_you_mean


def named(
    layers: Collection[str],
    patterns: Iterable[str],
    option: str,
    kinds: Mapping[str, Collection[str]] | None = None,
) -> dict[str, set[str]]:
    """For each of `patterns`, the layers that it selects.

    A pattern is the name of a layer, the name of a module that holds layers, a pattern such as "features.*", or one of
    `kinds`.

    Raises `NothingChangedError`, which names `option`, for each pattern that selects no layer.
    """
    found = {
        pattern: {name for name in layers if any(fnmatchcase(place, pattern) for place in places(name))}
        | set((kinds or {}).get(pattern, ()))
        for pattern in patterns
    }
    known = {place for name in layers for place in places(name)}
    problems = [
        Problem(
            f"{option}: no layer that it could concern is named {pattern!r}",
            did_you_mean(pattern, known),
            option=option,
        )
        for pattern, fitting in found.items()
        if not fitting
    ]
    if problems:
        raise NothingChangedError(*problems)
    return found


def places(name: str) -> Iterator[str]:
    """The modules around a layer, and it: "a.b.c" is in "a", in "a.b" and in "a.b.c"."""
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        yield ".".join(parts[:length])
