"""What declarations say of themselves, as a table of options, as TOML to paste, as a reference page and as a JSON schema.

Everything here is read from option models; nothing is written by hand, so nothing can be out of date.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema
from tomli_w import dumps

from edgeopt import hookspecs
from edgeopt.plugin import (
    PLUGIN_TYPES,
    DatasetPlugin,
    ExporterPlugin,
    ModelPlugin,
    PassPlugin,
    Plugin,
    ProbePlugin,
    QuantizerPlugin,
    ReaderPlugin,
)
from edgeopt.recipe import ExportStep, Recipe
from edgeopt.registry import Registered, Registry, load_registry
from edgeopt.settings import DatasetOptions, Gates, MeasureSettings, TrainerSettings
from edgeopt.types import Json

#: The header under which a plugin of each kind stands in a recipe. A quantizer stands in the options of a pass; the options
#: of a reader are given to `edgeopt convert` as `--set source.OPTION=VALUE`, those of a probe to `edgeopt sensitivity` as
#: `--set probe.OPTION=VALUE`.
HEADERS: Mapping[type[Plugin], str] = {
    DatasetPlugin: "[dataset]",
    ModelPlugin: "[model]",
    QuantizerPlugin: "[passes.quantizer]",
    PassPlugin: "[[passes]]",
    ExporterPlugin: "[[exports]]",
    ReaderPlugin: "[source]",
    ProbePlugin: "[probe]",
}

_NOT_IN_RECIPES = (ReaderPlugin, ProbePlugin)

#: The tables of a recipe that belong to the core.
CORE_TABLES: Mapping[str, type[BaseModel]] = {
    "trainer": TrainerSettings,
    "measure": MeasureSettings,
    "gates": Gates,
}

_JSON_SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True)
class Option:
    """One option in words.

    `inner` holds the options of a nested table; `example` is a value that fits; `absent` says that the option is left out
    by default.
    """

    name: str
    type: str
    bounds: str
    required: bool
    absent: bool
    default: Json
    example: Json
    description: str
    inner: tuple[Option, ...] = ()

    @property
    def type_and_bounds(self) -> str:
        """Such as "integer, 1 to 16"."""
        return f"{self.type}, {self.bounds}" if self.bounds else self.type

    @property
    def default_in_words(self) -> str:
        """The default as TOML, or what it means that there is none."""
        if self.required:
            return "required"
        if self.absent:
            return "none"
        return "as below" if self.inner else _toml_value(self.default)


def options_of(model: type[BaseModel]) -> tuple[Option, ...]:
    """The options of a model in the order in which it declares them; those that every data set takes come last."""
    schema = _schema_of(model)
    shared = DatasetOptions.model_fields if issubclass(model, DatasetOptions) else ()
    return tuple(sorted(_options(schema, schema.get("$defs", {})), key=lambda option: option.name in shared))


def plugin_toml(plugin: Plugin) -> str:
    """A table for a recipe with every option at its default, each with its meaning as a comment.

    An option without a default value is a comment itself, a required one holds an example.
    """
    header = HEADERS[type(plugin)]
    lines = [f"# {plugin.summary}", header, f'use = "{plugin.name}"']
    lines += _toml_lines(options_of(plugin.options), header.strip("[]"))
    return "\n".join(lines) + "\n"


def table_toml(name: str, model: type[BaseModel]) -> str:
    """A table of the core, such as `[trainer]`, with every option at its default."""
    return "\n".join([f"[{name}]", *_toml_lines(options_of(model), name)]) + "\n"


def recipe_schema(registry: Registry) -> dict[str, Json]:
    """JSON schema (draft 2020-12) of recipes with the plugins of `registry`.

    A step is told by its `use`; an option that refers to another plugin takes a name or a table with `use`.
    """
    schema = _schema_of(Recipe)
    definitions = schema["$defs"]
    del definitions["Step"], definitions["ExportStep"]
    for plugin in (entry.plugin for entry in registry if not isinstance(entry.plugin, _NOT_IN_RECIPES)):
        extra = _schema_of(ExportStep)["properties"]["name"] if isinstance(plugin, ExporterPlugin) else None
        definitions.update(_plugin_definitions(plugin, extra))
    for kind in (each for each in PLUGIN_TYPES if each not in _NOT_IN_RECIPES):
        definitions[kind.kind] = _one_of([_definition_name(kind, name) for name in registry.names(kind)])
        names = {"enum": registry.names(kind), "description": f"name of a {kind.kind}"}
        definitions[f"{kind.kind}-reference"] = {"anyOf": [names, {"$ref": f"#/$defs/{kind.kind}"}]}
    properties = schema["properties"]
    steps = {"dataset": DatasetPlugin, "model": ModelPlugin, "passes": PassPlugin, "exports": ExporterPlugin}
    for name, kind in steps.items():
        reference = {"$ref": f"#/$defs/{kind.kind}"}
        if properties[name].get("type") == "array":
            properties[name]["items"] = reference
        else:
            properties[name] = {**reference, "description": properties[name]["description"]}
    return {"$schema": _JSON_SCHEMA_DIALECT, **schema, "title": "edgeopt recipe"}


def reference_page(registered: Iterable[Registered]) -> str:
    """The reference in Markdown: the recipe's own keys and tables, every plugin with its options, every hook."""
    entries = list(registered)
    parts = [
        "# Reference",
        "This page is written by `python -m edgeopt.describe docs/reference.md` from the declarations themselves.",
        "## Recipe",
        _options_table(option for option in options_of(Recipe) if option.name not in CORE_TABLES),
    ]
    tables: dict[str, type[BaseModel]] = {"[[exports]]": ExportStep}
    tables |= {f"[{name}]": model for name, model in CORE_TABLES.items()}
    for header, model in tables.items():
        parts += [f"### `{header}`", _summary(model), _options_table(options_of(model))]
    for kind in PLUGIN_TYPES:
        parts.append(f"## {_PLURALS[kind]}")
        if kind is DatasetPlugin:
            parts += ["### Every data set", _summary(DatasetOptions), _options_table(options_of(DatasetOptions))]
        for entry in sorted((e for e in entries if type(e.plugin) is kind), key=lambda e: e.plugin.name):
            parts += _plugin_section(entry.plugin)
    parts += ["## Hooks", f"The entry-point group is `{hookspecs.GROUP}`."]
    for name, hook in vars(hookspecs).items():
        if name.startswith("edgeopt_"):
            parts += [f"### `{name}`", _dedent(hook.__doc__ or "")]
    return "\n\n".join(parts) + "\n"


_PLURALS: Mapping[type[Plugin], str] = {
    DatasetPlugin: "Data sets",
    ModelPlugin: "Models",
    QuantizerPlugin: "Quantizers",
    PassPlugin: "Passes",
    ExporterPlugin: "Exporters",
    ReaderPlugin: "Readers",
    ProbePlugin: "Probes",
}


class _Schemas(GenerateJsonSchema):
    """pydantic's schemas, with the values that default factories give."""

    def get_default_value(self, schema: core_schema.WithDefaultSchema) -> Any:
        if "default_factory" in schema and not schema.get("default_factory_takes_data"):
            make = cast("Callable[[], Any]", schema["default_factory"])
            return make()
        return super().get_default_value(schema)


def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(by_alias=True, schema_generator=_Schemas)


# ---- options in words -------------------------------------------------------------------------------------------------


def _options(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> tuple[Option, ...]:
    required = schema.get("required", ())
    return tuple(
        _option(name, _resolved(field, definitions), definitions, required=name in required)
        for name, field in schema["properties"].items()
    )


def _option(name: str, field: Mapping[str, Any], definitions: Mapping[str, Any], *, required: bool) -> Option:
    variants = [_resolved(variant, definitions) for variant in field.get("anyOf", (field,))]
    given = [variant for variant in variants if variant.get("type") != "null"]
    nested = next((variant for variant in given if "properties" in variant), None)
    examples = field.get("examples") or [_example(given[0], definitions)]
    return Option(
        name=name,
        type=" or ".join(_type_in_words(variant, definitions) for variant in given),
        bounds=" or ".join(filter(None, map(_bounds_in_words, given))),
        required=required,
        absent="default" in field and field["default"] is None,
        default=field.get("default"),
        example=examples[0],
        description=field.get("description", ""),
        inner=_options(nested, definitions) if nested else (),
    )


def _resolved(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """A field with the definition that it refers to written in; what stands in the field itself wins."""
    reference = field.get("$ref")
    return {**definitions[reference.rpartition("/")[2]], **field} if reference else field


def _type_in_words(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if "x-plugin" in field:
        return f"name of a {field['x-plugin']}, or a table with `use`"
    if "enum" in field:
        return "one of " + ", ".join(map(_toml_value, field["enum"]))
    if "const" in field:
        return _toml_value(field["const"])
    match field.get("type"):
        case "array" if "prefixItems" in field:
            inner = _type_in_words(_resolved(field["prefixItems"][0], definitions), definitions)
            return f"{len(field['prefixItems'])} {_plural(inner)}"
        case "array":
            return f"list of {_plural(_type_in_words(_resolved(field.get('items', {}), definitions), definitions))}"
        case "object" if "properties" in field:
            return "table"
        case "object":
            values = field.get("additionalProperties")
            return f"table of {_plural(_type_in_words(values, definitions))}" if isinstance(values, dict) else "table"
        case "string" if field.get("format") in ("path", "file-path", "directory-path"):
            return "path"
        case kind:
            return {"string": "text", "boolean": "true or false"}.get(str(kind), str(kind or "any value"))


def _plural(kind: str) -> str:
    return f"{kind}s" if kind in ("integer", "number", "path", "table", "text") else kind


def _bounds_in_words(field: Mapping[str, Any]) -> str:
    low, high = field.get("minimum"), field.get("maximum")
    above, below = field.get("exclusiveMinimum"), field.get("exclusiveMaximum")
    words = []
    if low is not None and high is not None:
        words.append(f"{low:.10g} to {high:.10g}" if low != high else f"{low:.10g}")
    else:
        bounds = (("at least", low), ("above", above), ("at most", high), ("below", below))
        words += [f"{word} {bound:.10g}" for word, bound in bounds if bound is not None]
    if field.get("multipleOf", 1) != 1:
        words.append(f"a multiple of {field['multipleOf']:g}")
    if field.get("minItems") and "prefixItems" not in field:
        words.append(f"{field['minItems']} or more")
    if field.get("pattern"):
        words.append(f"matching `{field['pattern']}`")
    return ", ".join(words)


def _example(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> Json:
    """A value of the right type within its bounds, for an option that has no default to show."""
    if "x-plugin" in field:
        return field["x-plugin"]
    if "enum" in field or "const" in field:
        return field.get("enum", [field.get("const")])[0]
    match field.get("type"):
        case "integer" | "number" as kind:
            low = field.get("minimum", field.get("exclusiveMinimum", 0))
            high = field.get("maximum", field.get("exclusiveMaximum", low + 2))
            if kind == "integer":
                return low if "minimum" in field else int(low) + 1
            return low if "minimum" in field else (low + high) / 2
        case "boolean":
            return True
        case "array":
            count = max(field.get("minItems", 1), 1)
            items = field.get("prefixItems") or [field.get("items", {})] * count
            return [_example(_resolved(item, definitions), definitions) for item in items]
        case "object":
            return {}
        case _:
            return "..."


# ---- TOML ---------------------------------------------------------------------------------------------------------------


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
        yield f"{'# ' if option.absent else ''}{option.name} = {_toml_value(value)}"
    for option in nested:
        name = f"{table}.{option.name}"
        lines = [f"[{name}]", *_toml_lines(option.inner, name)]
        yield ""
        yield f"# {option.description}"
        yield from (f"# {line}".rstrip() for line in lines) if option.absent else lines


def _toml_value(value: Json) -> str:
    """A JSON value as TOML on one line."""
    if isinstance(value, dict):
        inner = ", ".join(
            f"{_toml_key(name)} = {_toml_value(each)}" for name, each in value.items() if each is not None
        )
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    return dumps({"value": value}).strip().removeprefix("value = ")


def _toml_key(name: str) -> str:
    return dumps({name: 0}).partition(" = ")[0]


# ---- Markdown -----------------------------------------------------------------------------------------------------------


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


# ---- JSON schema --------------------------------------------------------------------------------------------------------


def _definition_name(kind: type[Plugin], name: str) -> str:
    return f"{kind.kind}:{name}"


def _one_of(names: Iterable[str]) -> dict[str, Json]:
    """One of the named definitions, told apart by `use`; nothing at all where no plugin is installed."""
    references = [{"$ref": f"#/$defs/{name}"} for name in names]
    return {"type": "object", "required": ["use"], "oneOf": references} if references else {"not": {}}


def _plugin_definitions(plugin: Plugin, name_field: Json) -> dict[str, Json]:
    """The definition of a plugin's table, and the definitions that it needs, under names of its own."""
    own = _definition_name(type(plugin), plugin.name)
    schema = _schema_of(plugin.options)
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
    """`value` with references to inner definitions renamed, and with `x-plugin` replaced by the plugins of that kind."""
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


def _write_reference(path: Path) -> None:
    """Writes the reference of the plugins that come with edgeopt."""
    own = (entry for entry in load_registry() if entry.origin.name == "edgeopt")
    path.write_text(reference_page(own), encoding="utf-8")


if __name__ == "__main__":
    _write_reference(Path(sys.argv[1]))
