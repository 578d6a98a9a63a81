"""What declarations say of themselves, as a table of options, as TOML to paste, as a reference page and as a JSON
schema.

Everything here is read from option models; nothing is written by hand, so nothing can be out of date.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema
from tomli_w import dumps

from edgeopt.arrays import Json
from edgeopt.options import DatasetOptions, MeasureSettings, TrainerSettings
from edgeopt.recipe.gates import Gates
from edgeopt.recipe.tune import TuneSettings

#: The tables of a recipe that belong to the core.
CORE_TABLES: Mapping[str, type[BaseModel]] = {
    "trainer": TrainerSettings,
    "measure": MeasureSettings,
    "gates": Gates,
    "tune": TuneSettings,
}


@dataclass(frozen=True)
class Option:
    """One option in words.

    `inner` holds the options of a nested table; `example` is a value that fits; `absent` says that the option is left
    out by default.
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
        return "as below" if self.inner else toml_value(self.default)


def options_of(model: type[BaseModel]) -> tuple[Option, ...]:
    """The options of a model in the order in which it declares them; those that every data set takes come last."""
    schema = schema_of(model)
    shared = DatasetOptions.model_fields if issubclass(model, DatasetOptions) else ()
    return tuple(sorted(_options(schema, schema.get("$defs", {})), key=lambda option: option.name in shared))


class _Schemas(GenerateJsonSchema):
    """pydantic's schemas, with the values that default factories give."""

    def get_default_value(self, schema: core_schema.WithDefaultSchema) -> Any:
        if "default_factory" in schema and not schema.get("default_factory_takes_data"):
            make = cast("Callable[[], Any]", schema["default_factory"])
            return make()
        return super().get_default_value(schema)


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of an option model, with the values that default factories give."""
    return model.model_json_schema(by_alias=True, schema_generator=_Schemas)


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
        return "one of " + ", ".join(map(toml_value, field["enum"]))
    if "const" in field:
        return toml_value(field["const"])
    if "anyOf" in field:
        return " or ".join(_type_in_words(_resolved(each, definitions), definitions) for each in field["anyOf"])
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
            if not isinstance(values, dict):
                return "table"
            return f"table of {_plural(_type_in_words(_resolved(values, definitions), definitions))}"
        case "string" if field.get("format") in ("path", "file-path", "directory-path"):
            return "path"
        case kind:
            return {"string": "text", "boolean": "true or false"}.get(str(kind), str(kind or "any value"))


def _plural(kind: str) -> str:
    first, other, rest = kind.partition(" or ")
    return f"{first}s{other}{rest}" if first in ("integer", "number", "path", "table", "text") else kind


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
        least, most = field["minItems"], field.get("maxItems")
        words.append(f"{least} or more" if most is None else f"{least} to {most} of them")
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


def toml_value(value: Json) -> str:
    """A JSON value as TOML on one line."""
    if isinstance(value, dict):
        inner = ", ".join(f"{toml_key(name)} = {toml_value(each)}" for name, each in value.items() if each is not None)
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return dumps({"value": value}).strip().removeprefix("value = ")


def toml_key(name: str) -> str:
    """A key as TOML, quoted where it has to be."""
    return dumps({name: 0}).partition(" = ")[0]
