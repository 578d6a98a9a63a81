"""A plugin with its options, and how an option refers to another plugin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Any, Generic, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from edgeopt.options import Options, to_json
from edgeopt.plugins.declarations import Plugin

P = TypeVar("P", bound=Plugin)


@dataclass(frozen=True)
class Use(Generic[P]):
    """A plugin with its options: what `use = "..."` in a recipe becomes.

    Option models refer to other plugins with it, written in a recipe as a name, or as a table with `use` and that
    plugin's options: `quantizer: Annotated[Use[QuantizerPlugin], AsTable] = Field("xnnpack", description="...")`. A
    `Literal` beside it in the type takes words that name no plugin.
    """

    plugin: P
    options: Any

    def to_json(self) -> dict[str, Any]:
        """`use` and all options, as JSON values."""
        return {"use": self.plugin.name, **to_json(self.options)}


def references(use: Use[Any]) -> Iterable[Use[Any]]:
    """The plugins that the options of `use` refer to, and theirs, without those that are not looked at."""
    idle = idle_references(use.options)
    for name in type(use.options).model_fields:
        value = getattr(use.options, name)
        if isinstance(value, Use) and name not in idle:
            yield value
            yield from references(value)


def idle_references(options: Any) -> frozenset[str]:
    """Those of options that refer to other plugins and are not looked at; none where the class of options is no
    `Options`, which is an author's mistake that the contracts tell.
    """
    return options.idle_references() if isinstance(options, Options) else frozenset()


class _AsTable:
    """Keeps pydantic out of the declaration in a `Use`: the plan makes it, and it is written as a table."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        written = core_schema.plain_serializer_function_ser_schema(
            lambda use: use.to_json() if isinstance(use, Use) else use  # a default is still the name in the recipe
        )
        metadata: dict[str, Any] = {"kind": reference_kind(source)}
        given: CoreSchema = core_schema.is_instance_schema(Use, serialization=written, metadata=metadata)
        if words := reference_words(source):
            metadata["words"] = words
            given = core_schema.union_schema(
                [core_schema.literal_schema(list(words)), given], serialization=written, metadata=metadata
            )
        if type(None) in get_args(source):
            return core_schema.nullable_schema(given, serialization=written, metadata=metadata)
        return given

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        plugin = {"x-plugin": schema["metadata"]["kind"].kind}
        words = schema["metadata"].get("words", ())
        return {"anyOf": [*({"const": word} for word in words), plugin]} if words else plugin


#: Stands beside `Use[...]` in the annotation of every option that refers to another plugin.
AsTable = _AsTable()


def reference_kind(annotation: Any) -> type[Plugin] | None:
    """The kind of plugin that an option refers to, when its type is `Use[...]` or `Use[...] | None`."""
    if get_origin(annotation) is Use:
        (kind,) = get_args(annotation)
        return kind if isinstance(kind, type) else None
    return next((kind for inner in get_args(annotation) if (kind := reference_kind(inner))), None)


def reference_words(annotation: Any) -> tuple[str, ...]:
    """The words that an option takes instead of a reference, when its type is `Use[...] | Literal[...]`."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(word for inner in get_args(annotation) for word in reference_words(inner))


def default_references(options: type[BaseModel]) -> Iterator[tuple[str, type[Plugin], str]]:
    """The options that refer to another plugin where a recipe leaves them out: each with the kind and name of that."""
    for name, option in options.model_fields.items():
        kind, default = reference_kind(option.annotation), option.default
        if isinstance(default, dict):
            default = default.get("use")
        if kind is not None and isinstance(default, str) and default not in reference_words(option.annotation):
            yield name, kind, default


def misplaced_references(options: type[BaseModel]) -> list[str]:
    """The options whose type holds a `Use` where it is not looked up: in a list, or in a table inside the options."""
    found = []
    for name, option in options.model_fields.items():
        annotation = option.annotation
        direct = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
        if any(_holds_reference(each) for each in direct if get_origin(each) is not Use):
            found.append(name)
    return found


def _holds_reference(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return any(_holds_reference(option.annotation) for option in annotation.model_fields.values())
    return get_origin(annotation) is Use or any(_holds_reference(each) for each in get_args(annotation))
