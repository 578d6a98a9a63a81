"""The reference page in Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel

from edgeopt.describe.options import CORE_TABLES, Option, options_of
from edgeopt.options import DatasetOptions
from edgeopt.plugins import hookspecs
from edgeopt.plugins.declarations import (
    PLUGIN_TYPES,
    DatasetPlugin,
    ExporterPlugin,
    PassPlugin,
    Plugin,
    ProbePlugin,
    QuantizerPlugin,
)
from edgeopt.plugins.registry import Registered, load_registry
from edgeopt.recipe.gates import DeviceGates
from edgeopt.recipe.read import DeviceStep, ExportStep, Recipe


def reference_page(registered: Iterable[Registered]) -> str:
    """The reference in Markdown: the recipe's own keys and tables, every plugin with its options, every hook."""
    entries = list(registered)
    parts = [
        "# Reference",
        "This page is written by `python -m edgeopt.describe docs/reference.md` from the declarations themselves.",
        "## Recipe",
        _options_table(option for option in options_of(Recipe) if option.name not in CORE_TABLES),
    ]
    tables: dict[str, type[BaseModel]] = {"[[exports]]": ExportStep, "[[devices]]": DeviceStep}
    tables |= {f"[{name}]": model for name, model in CORE_TABLES.items()}
    tables["[gates.devices.NAME]"] = DeviceGates
    for header, model in tables.items():
        parts += [f"### `{header}`", _summary(model), _options_table(options_of(model))]
    for kind in PLUGIN_TYPES:
        parts.append(f"## {kind.plural.capitalize()}")
        if kind is DatasetPlugin:
            parts += ["### Every data set", _summary(DatasetOptions), _options_table(options_of(DatasetOptions))]
        for entry in sorted((e for e in entries if isinstance(e.plugin, kind)), key=lambda e: e.plugin.name):
            parts += _plugin_section(entry.plugin)
    parts += ["## Hooks", f"The entry-point group is `{hookspecs.GROUP}`."]
    for name, hook in vars(hookspecs).items():
        if name.startswith("edgeopt_"):
            parts += [f"### `{name}`", _dedent(hook.__doc__ or "")]
    return "\n\n".join(parts) + "\n"


def _plugin_section(plugin: Plugin) -> Iterable[str]:
    yield f"### `{plugin.name}`"
    yield plugin.summary
    facts = list(_facts(plugin))
    if facts:
        yield "\n".join(f"- {fact}" for fact in facts)
    options = options_of(plugin.options)
    if isinstance(plugin, DatasetPlugin):
        shared = options_of(DatasetOptions)
        options = tuple(option for option in options if option not in shared)
        yield "Besides [what every data set takes](#every-data-set):"
    yield _options_table(options)


def _facts(plugin: Plugin) -> Iterable[str]:
    match plugin:
        case PassPlugin():
            yield f"Takes a {plugin.accepts}, gives a {plugin.produces}."
        case ExporterPlugin():
            yield f"Runtime: {plugin.runtime}. Files end in `{plugin.suffix}`."
        case QuantizerPlugin():
            yield f"Precision: {plugin.precision}."
        case ProbePlugin(levels=levels):
            tried = ", ".join(f"{level:g}" for level in levels.default)
            yield f"Levels: {levels.mildest:g} to {levels.harshest:g}; {tried} when none are named."
    if plugin.requires:
        yield f"Needs {', '.join(plugin.requires)}: `pip install '{plugin.install}'`."


def _options_table(options: Iterable[Option]) -> str:
    rows = list(_option_rows(options))
    if not rows:
        return "No options."
    return "\n".join(["| option | type | default | meaning |", "|---|---|---|---|", *rows])


def _option_rows(options: Iterable[Option], prefix: str = "") -> Iterable[str]:
    for option in options:
        name = prefix + option.name
        default = option.default_in_words
        shown = default if default in ("required", "none", "as below") else f"`{default}`"
        cells = (f"`{name}`", option.type_and_bounds, shown, option.description)
        yield "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
        yield from _option_rows(option.inner, f"{name}.")


def _summary(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().splitlines()[0]


def _dedent(text: str) -> str:
    from inspect import cleandoc  # slow to import, and only the reference page needs it

    return cleandoc(text)


def write_reference(path: Path) -> None:
    """Writes the reference of the plugins that come with edgeopt."""
    own = (entry for entry in load_registry() if entry.origin.name == "edgeopt")
    path.write_text(reference_page(own), encoding="utf-8")
