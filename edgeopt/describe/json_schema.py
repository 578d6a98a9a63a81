"""The JSON schema of recipes, with which editors complete them."""

from __future__ import annotations

from collections.abc import Iterable

from edgeopt.arrays import Json
from edgeopt.describe.options import schema_of
from edgeopt.plugins.declarations import (
    PLUGIN_TYPES,
    DatasetPlugin,
    DevicePlugin,
    ExporterPlugin,
    ModelPlugin,
    PassPlugin,
    Plugin,
    TaskPlugin,
    kind_of,
)
from edgeopt.plugins.registry import Registry
from edgeopt.recipe.read import DeviceStep, ExportStep, Recipe

_JSON_SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def recipe_schema(registry: Registry) -> dict[str, Json]:
    """JSON schema (draft 2020-12) of recipes with the plugins of `registry`.

    A step is told by its `use`; an option that refers to another plugin takes a name or a table with `use`.
    """
    schema = schema_of(Recipe)
    definitions = schema["$defs"]
    del definitions["Step"], definitions["ExportStep"], definitions["DeviceStep"]
    for plugin in (entry.plugin for entry in registry if entry.plugin.in_recipes):
        step = DeviceStep if isinstance(plugin, DevicePlugin) else ExportStep
        named = isinstance(plugin, DevicePlugin | ExporterPlugin)
        extra = schema_of(step)["properties"]["name"] if named else None
        definitions.update(_plugin_definitions(plugin, extra))
    for kind in (each for each in PLUGIN_TYPES if each.in_recipes):
        definitions[kind.kind] = _one_of([_definition_name(kind, name) for name in registry.names(kind)])
        names = {"enum": registry.names(kind), "description": f"name of a {kind.kind}"}
        definitions[f"{kind.kind}-reference"] = {"anyOf": [names, {"$ref": f"#/$defs/{kind.kind}"}]}
    properties = schema["properties"]
    steps: dict[str, type[Plugin]] = {
        "task": TaskPlugin,
        "dataset": DatasetPlugin,
        "model": ModelPlugin,
        "passes": PassPlugin,
        "exports": ExporterPlugin,
        "devices": DevicePlugin,
    }
    for name, kind in steps.items():
        reference = {"$ref": f"#/$defs/{kind.kind}"}
        if properties[name].get("type") == "array":
            properties[name]["items"] = reference
        else:
            properties[name] = {**reference, "description": properties[name]["description"]}
    return {"$schema": _JSON_SCHEMA_DIALECT, **schema, "title": "edgeopt recipe"}


def _definition_name(kind: type[Plugin], name: str) -> str:
    return f"{kind.kind}:{name}"


def _one_of(names: Iterable[str]) -> dict[str, Json]:
    """One of the named definitions, told apart by `use`; nothing at all where no plugin is installed."""
    references = [{"$ref": f"#/$defs/{name}"} for name in names]
    return {"type": "object", "required": ["use"], "oneOf": references} if references else {"not": {}}


def _plugin_definitions(plugin: Plugin, name_field: Json) -> dict[str, Json]:
    """The definition of a plugin's table, and the definitions that it needs, under names of its own."""
    own = _definition_name(kind_of(plugin), plugin.name)
    schema = schema_of(plugin.options)
    inner = schema.pop("$defs", {})
    properties = {"use": {"const": plugin.name, "description": plugin.summary}}
    if name_field:
        properties["name"] = name_field
    schema["properties"] = {**properties, **schema.get("properties", {})}
    schema["required"] = ["use", *schema.get("required", ())]
    schema["title"], schema["description"] = plugin.name, plugin.summary
    definitions = {own: schema, **{f"{own}:{name}": definition for name, definition in inner.items()}}
    return {name: _with_references(definition, own) for name, definition in definitions.items()}


def _with_references(value: Json, own: str) -> Json:
    """`value` with references to inner definitions renamed, and with `x-plugin` replaced by the
    plugins of that kind.
    """
    if isinstance(value, list):
        return [_with_references(each, own) for each in value]
    if not isinstance(value, dict):
        return value
    value = {name: _with_references(each, own) for name, each in value.items()}
    if isinstance(value.get("$ref"), str):
        value["$ref"] = f"#/$defs/{own}:{value['$ref'].rpartition('/')[2]}"
    if isinstance(kind := value.pop("x-plugin", None), str):
        value["$ref"] = f"#/$defs/{kind}-reference"
    return value
