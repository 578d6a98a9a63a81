"""A plugin's options as TOML to paste into a recipe."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel

from edgeopt.describe.options import Option, options_of, toml_value
from edgeopt.plugins.declarations import (
    Plugin,
)


def plugin_toml(plugin: Plugin) -> str:
    """A table for a recipe with every option at its default, each with its meaning as a comment.

    An option without a default value is a comment itself, a required one holds an example.
    """
    header = plugin.header
    lines = [f"# {plugin.summary}", header, f'use = "{plugin.name}"']
    lines += _toml_lines(options_of(plugin.options), header.strip("[]"))
    return "\n".join(lines) + "\n"


def table_toml(name: str, model: type[BaseModel]) -> str:
    """A table of the core, such as `[trainer]`, with every option at its default."""
    return "\n".join([f"[{name}]", *_toml_lines(options_of(model), name)]) + "\n"


def _toml_lines(options: Iterable[Option], table: str) -> Iterable[str]:
    """The options as commented lines; nested tables follow the plain values, as TOML wants it."""
    nested = []
    for option in options:
        if option.inner:
            nested.append(option)
            continue
        yield ""
        yield f"# {option.description} ({option.type_and_bounds}{', required' if option.required else ''})"
        value = option.example if option.required or option.absent else option.default
        yield f"{'# ' if option.absent else ''}{option.name} = {toml_value(value)}"
    for option in nested:
        name = f"{table}.{option.name}"
        lines = [f"[{name}]", *_toml_lines(option.inner, name)]
        yield ""
        yield f"# {option.description}"
        yield from (f"# {line}".rstrip() for line in lines) if option.absent else lines
