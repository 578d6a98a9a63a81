"""Frozen dataclasses as JSON and back, which is how processes and the store hand values on."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from edgeopt.arrays import Json

if TYPE_CHECKING:
    from collections.abc import Hashable

    from pydantic import TypeAdapter

T = TypeVar("T")


def to_values(value: Any) -> Json:
    """A dataclass as JSON values."""
    return _adapter(type(value)).dump_python(value, mode="json")


def from_values(kind: type[T], values: Json) -> T:
    """Reads what `to_values` made of a `kind`. Raises `pydantic.ValidationError` for anything else."""
    read: T = _adapter(kind).validate_python(values)
    return read


def to_text(value: Any) -> str:
    """A dataclass as JSON text."""
    return _adapter(type(value)).dump_json(value).decode()


def from_text(kind: type[T], text: str) -> T:
    """Reads what `to_text` wrote of a `kind`."""
    read: T = _adapter(kind).validate_json(text)
    return read


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return _made(cast("Hashable", kind))  # mypy takes the class's own __hash__ for that of its instances


@cache  # making one takes milliseconds, and a study reads and writes thousands of values
def _made(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter  # a tenth of a second, and only where something is read or written

    return TypeAdapter(kind)
