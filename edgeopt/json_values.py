"""Frozen dataclasses as JSON and back, which is how processes and the store hand values on."""

from __future__ import annotations

from typing import Any, TypeVar

from edgeopt.arrays import Json

T = TypeVar("T")


def to_values(value: Any) -> Json:
    """A dataclass as JSON values."""
    from pydantic import TypeAdapter  # a tenth of a second, and only where something is read or written

    return TypeAdapter(type(value)).dump_python(value, mode="json")


def from_values(kind: type[T], values: Json) -> T:
    """Reads what `to_values` made of a `kind`. Raises `pydantic.ValidationError` for anything else."""
    from pydantic import TypeAdapter  # as above

    return TypeAdapter(kind).validate_python(values)


def to_text(value: Any) -> str:
    """A dataclass as JSON text."""
    from pydantic import TypeAdapter  # as above

    return TypeAdapter(type(value)).dump_json(value).decode()


def from_text(kind: type[T], text: str) -> T:
    """Reads what `to_text` wrote of a `kind`."""
    from pydantic import TypeAdapter  # as above

    return TypeAdapter(kind).validate_json(text)
