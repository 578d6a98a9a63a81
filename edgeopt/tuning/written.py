"""The values of a recipe, of which trials and the winner are made. Light."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeopt.recipe.own_plugins import own_plugin_files
from edgeopt.recipe.read import Recipe


def whole(recipe: Recipe) -> dict[str, Any]:
    """The values of a recipe without its study; the files of its own plugins by their whole paths."""
    values: dict[str, Any] = {name: value for name, value in recipe.to_json().items() if name != "tune"}
    if recipe.plugins:
        values["plugins"] = [str(file.resolve()) for file in own_plugin_files(recipe)]
    return values


def plain(recipe: Recipe) -> dict[str, Any]:
    """The same without what concerns a single run alone: gates, trackers and a sweep."""
    values = {name: value for name, value in whole(recipe).items() if name != "gates"}
    if isinstance(trainer := values.get("trainer"), Mapping):
        values["trainer"] = {name: value for name, value in trainer.items() if name != "loggers"}
    if isinstance(measure := values.get("measure"), Mapping):
        values["measure"] = {name: value for name, value in measure.items() if name != "sweep"}
    return values
