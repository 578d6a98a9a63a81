"""Where things stand in a TOML text: the line of each key, and of a mistake."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

Key = tuple[str | int, ...]


def toml_mistake(error: tomllib.TOMLDecodeError, text: str) -> tuple[str, int]:
    """What is wrong with a text that is no TOML, and in which line."""
    message = str(error)
    found = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    line = int(found[1]) if found else text.count("\n") + 1
    brief = message[: found.start()] if found else message.removesuffix(" (at end of document)")
    return brief, line


def key_lines(text: str) -> dict[Key, int]:
    """The line of every table and key of a text that is known to be TOML.

    A statement is the shortest run of lines that parses by itself; what it defines is read back from its parsed value.
    """
    lines: dict[Key, int] = {}
    table: Key = ()
    counts: dict[Key, int] = {}
    statement = ""
    first = 0
    for number, line in enumerate(text.splitlines(), start=1):
        if not statement:
            first = number
        statement += line + "\n"
        try:
            values = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        is_header = statement.lstrip().startswith("[")
        statement, is_array = "", line.lstrip().startswith("[[")
        if is_header:
            table = _header(values, counts, is_array)
            lines.setdefault(table, first)
            if is_array:
                lines.setdefault(table[:-1], first)
        elif values:
            for key in _keys(values):
                lines.setdefault((*table, *key), first)
    return lines


def _header(values: Mapping[str, Any], counts: dict[Key, int], is_array: bool) -> Key:
    """The full key of a table header, with the index of each array of tables on its way."""
    key: Key = ()
    value: Any = values
    while isinstance(value, dict) and value:
        name, value = next(iter(value.items()))
        key = (*key, name)
        if isinstance(value, list):
            if is_array and not value[0]:
                counts[key] = counts.get(key, -1) + 1
            value = value[0]
        if key in counts:
            key = (*key, counts[key])
    return key


def _keys(value: Any) -> Iterable[Key]:
    """Every key below `value`, tables and arrays included."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, inner in items:
        yield (name,)
        if isinstance(inner, dict | list):
            for key in _keys(inner):
                yield (name, *key)
