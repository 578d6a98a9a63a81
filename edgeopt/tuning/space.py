"""What a study may change: places in a recipe, each with the values that it may take. Light."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeopt.arrays import Json
from edgeopt.describe.options import schema_of
from edgeopt.errors import Problem, did_you_mean
from edgeopt.plugins.declarations import DatasetPlugin, ExporterPlugin, ModelPlugin, PassPlugin, Plugin
from edgeopt.plugins.registry import Registry
from edgeopt.recipe.read import Recipe, Step
from edgeopt.toml_lines import Key

Values = Mapping[str, Json]
"""What a trial gives each parameter, by its name; those that a left-out pass would need are not there."""

_RANGE = frozenset({"low", "high", "step", "log", "optional"})
_BEYOND = 1_000_000  # the number of no pass
_LISTS: Mapping[str, type[Plugin]] = {"passes": PassPlugin, "exports": ExporterPlugin}
_TABLES: Mapping[str, type[Plugin]] = {"dataset": DatasetPlugin, "model": ModelPlugin}


@dataclass(frozen=True)
class Choices:
    """One of these values."""

    values: tuple[Json, ...]

    @property
    def count(self) -> int:
        """How many values there are."""
        return len(self.values)

    @property
    def ends(self) -> tuple[Json, ...]:
        """The values by which the whole is checked."""
        return self.values

    def told(self) -> str:
        """The values in words."""
        return ", ".join(json.dumps(each) for each in self.values)


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high`, both included; whole, in steps, or on a logarithmic scale."""

    low: float
    high: float
    step: float | None = None
    is_log: bool = False
    is_whole: bool = False

    @property
    def count(self) -> int | None:
        """How many values there are; None for as many as one likes."""
        step = self.step or (1 if self.is_whole else None)
        return None if step is None else int((self.high - self.low) / step + 1e-9) + 1

    @property
    def ends(self) -> tuple[Json, ...]:
        """The values by which the whole is checked."""
        return tuple(dict.fromkeys((self.value(self.low), self.value(self.high))))

    def value(self, number: float) -> float | int:
        """A number as the recipe has it."""
        return round(number) if self.is_whole else float(number)

    def told(self) -> str:
        """The values in words."""
        step = f" in steps of {self.step:g}" if self.step else ""
        return f"{self.low:g} to {self.high:g}{step}{', logarithmic' if self.is_log else ''}"


@dataclass(frozen=True)
class Parameter:
    """One thing that a study may change. `key` is its place in the recipe's values.

    Where `is_presence`, it says whether the pass at `key` is there at all; `needs` names the parameter of that kind
    without which this one changes nothing.
    """

    name: str
    key: Key
    scale: Choices | Range
    is_presence: bool = False
    needs: str | None = None


@dataclass(frozen=True)
class Space:
    """All that a study may change, in the order in which the recipe says so; passes that may be left out come first."""

    parameters: tuple[Parameter, ...]

    @property
    def count(self) -> int | None:
        """How many recipes there are; None where a number may take any value."""
        counts = [each.scale.count for each in self.parameters if each.needs is None and not each.is_presence]
        if None in counts:
            return None
        total = math.prod(count for count in counts if count is not None)
        for presence in (each for each in self.parameters if each.is_presence):
            inner = [each.scale.count for each in self.parameters if each.needs == presence.name]
            if None in inner:
                return None
            total *= 1 + math.prod(count for count in inner if count is not None)
        return total

    @property
    def first_pass(self) -> int:
        """The number of the first pass in which trials differ, 0 where what comes before passes differs.

        Where no training differs, it is beyond the last pass.
        """
        return min((_first_pass_of(each.key) for each in self.parameters), default=_BEYOND)

    def standing(self, resolved: Mapping[str, Any]) -> Values | None:
        """The values of the recipe as it stands, with every option written out; None where it lies outside."""
        found: dict[str, Json] = {}
        for each in self.parameters:
            value: Any = True if each.is_presence else _at(resolved, each.key)
            if isinstance(each.scale, Choices):
                if value not in each.scale.values:
                    return None
                value = each.scale.values[each.scale.values.index(value)]  # 30 as it is written, of an option's 30.0
            elif not isinstance(value, int | float) or not each.scale.low <= value <= each.scale.high:
                return None
            found[each.name] = value
        return found


def _first_pass_of(key: Key) -> int:
    if key[0] == "passes":
        return int(key[1])
    return _BEYOND if key[0] in ("exports", "measure") else 0


def changed(values: Mapping[str, Any], space: Space, chosen: Values) -> dict[str, Any]:
    """The values of a recipe with those of a trial in their places."""
    copied: dict[str, Any] = json.loads(json.dumps(values))
    absent: list[Key] = []
    for each in space.parameters:
        if each.name not in chosen:
            continue
        if each.is_presence:
            if not chosen[each.name]:
                absent.append(each.key)
            continue
        place: Any = copied
        for part in each.key[:-1]:
            place = place[part] if isinstance(part, int) else place.setdefault(part, {})
        place[each.key[-1]] = chosen[each.name]
    for key in sorted(absent, key=lambda key: -int(key[1])):
        del copied[str(key[0])][key[1]]
    return copied


def read_space(recipe: Recipe, written: Mapping[str, Any], registry: Registry) -> tuple[Space, list[Problem]]:
    """The space that `[tune.space]` describes, and all that is wrong with it, each with its line."""
    parameters: list[Parameter] = []
    problems: list[Problem] = []
    for name, value, key in _flat(written):
        try:
            parameters.append(_parameter(recipe, name, value, registry))
        except _WrongError as error:
            problems.append(Problem(error.message, error.hint, recipe.locate("tune", "space", *key)))
    present = {each.key: each.name for each in parameters if each.is_presence}
    known = [
        each if each.is_presence else Parameter(each.name, each.key, each.scale, needs=present.get(each.key[:2]))
        for each in parameters
    ]
    twice = {each.key for each in known if sum(each.key == other.key for other in known) > 1}
    problems += [Problem(f"tune.space names {'.'.join(map(str, key))} twice", "leave one of them out") for key in twice]
    if not parameters and not problems:
        hint = 'as in "passes.0.epochs" = { low = 1, high = 20 }'
        problems.append(Problem("tune.space is empty: there is nothing to try", hint, recipe.locate("tune")))
    return Space(tuple(sorted(known, key=lambda each: not each.is_presence))), problems


class _WrongError(Exception):
    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def _flat(written: Mapping[str, Any], before: Key = ()) -> Iterator[tuple[str, Any, Key]]:
    """Each parameter by its dotted name, whether its key was written in quotes or as tables in tables."""
    for key, value in written.items():
        if isinstance(value, Mapping) and value and not _RANGE & value.keys():
            yield from _flat(value, (*before, key))
        else:
            yield ".".join(map(str, (*before, key))), value, (*before, key)


def _parameter(recipe: Recipe, name: str, value: Any, registry: Registry) -> Parameter:
    key, step, kind = _place(recipe, name)
    rest = key[2:] if key[0] in _LISTS else key[1:]
    if not rest:
        if isinstance(value, Mapping) and value.get("optional") is True and key[0] == "passes":
            return Parameter(name, key, Choices((True, False)), is_presence=True)
        raise _WrongError(
            f"tune.space: {name!r} is a whole {key[0] if key[0] in _TABLES else 'step'}",
            f"name one of its options, as in {name}.OPTION, or for a pass write {{ optional = true }}",
        )
    return Parameter(name, key, _scale(name, value, _declared(name, rest, step, kind, registry)))


def _place(recipe: Recipe, name: str) -> tuple[Key, Step | None, type[Plugin] | None]:
    """The place in the recipe's values that a name means, and the step that it is in."""
    first, *rest = name.split(".")
    if first in _LISTS:
        steps: Sequence[Step] = getattr(recipe, first)
        if not rest:
            raise _WrongError(f"tune.space: {name!r} is a list", f"name one of them, as in {first}.0")
        index = _index(steps, first, rest[0])
        return (first, index, *rest[1:]), steps[index], _LISTS[first]
    if first in _TABLES:
        return (first, *rest), getattr(recipe, first), _TABLES[first]
    if first in ("trainer", "measure", "seed"):
        return (first, *rest), None, None
    known = (*_TABLES, *_LISTS, "trainer", "measure", "seed")
    raise _WrongError(
        f"tune.space: a recipe has no {first!r}", did_you_mean(first, known) or f"it has {', '.join(known)}"
    )


def _index(steps: Sequence[Step], table: str, part: str) -> int:
    if part.isdecimal():
        if int(part) < len(steps):
            return int(part)
        raise _WrongError(f"tune.space: {table} has no entry {part}", f"entries count from 0 to {len(steps) - 1}")
    names = [getattr(each, "name", None) or each.use for each in steps]
    places = [index for index, called in enumerate(names) if called == part]
    if len(places) == 1:
        return places[0]
    if places:
        raise _WrongError(
            f"tune.space: {table} has {part!r} {len(places)} times",
            f"name it by its number: {' or '.join(f'{table}.{place}' for place in places)}",
        )
    raise _WrongError(
        f"tune.space: {table} has no {part!r}", did_you_mean(part, names) or f"it has {', '.join(names) or 'none'}"
    )


def _declared(
    name: str, rest: Key, step: Step | None, kind: type[Plugin] | None, registry: Registry
) -> Mapping[str, Any]:
    """What the declaration of an option says of its values, as a JSON schema; empty where it says nothing."""
    if step is None or kind is None or rest[0] == "use":
        return {}
    try:
        plugin = registry.get(kind, step.use)
    except Exception:  # the plan says what is wrong with the step itself
        return {}
    schema = schema_of(plugin.options)
    definitions = schema.get("$defs", {})
    found: Mapping[str, Any] = schema
    for part in rest:
        properties = found.get("properties", {})
        if part not in properties:
            if found.get("additionalProperties") or not properties:
                return {}
            raise _WrongError(
                f"tune.space: {name!r} names no option of {step.use!r}", did_you_mean(str(part), list(properties))
            )
        found = _resolved(properties[part], definitions)
    return found


def _resolved(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """A field whose values are of one kind: what it refers to, or the one of several that is not null."""
    if reference := field.get("$ref"):
        return _resolved(definitions[reference.rpartition("/")[2]], definitions)
    given = [_resolved(each, definitions) for each in field.get("anyOf", ()) if each.get("type") != "null"]
    return given[0] if len(given) == 1 else field


def _scale(name: str, value: Any, declared: Mapping[str, Any]) -> Choices | Range:
    if isinstance(value, list):
        if not value:
            raise _WrongError(f"tune.space: {name!r} has no values", "give those that it may take")
        unique = [each for place, each in enumerate(value) if each not in value[:place]]
        return Choices(tuple(unique))
    if not isinstance(value, Mapping):
        raise _WrongError(
            f"tune.space: {name!r} is {json.dumps(value)}",
            "give a list of values, or a range as in { low = 0.3, high = 1.0 }, or {} for all that the option allows",
        )
    if unknown := [key for key in value if key not in _RANGE - {"optional"}]:
        raise _WrongError(
            f"tune.space: {name!r} has an unknown key {unknown[0]!r}", "a range has low, high, step and log"
        )
    if not {"low", "high"} & value.keys():
        if "enum" in declared:
            return Choices(tuple(declared["enum"]))
        if declared.get("type") == "boolean":
            return Choices((False, True))
    return _range(name, value, declared)


def _range(name: str, value: Mapping[str, Any], declared: Mapping[str, Any]) -> Range:
    low = value.get("low", declared.get("minimum"))
    high = value.get("high", declared.get("maximum"))
    missing = [end for end, given in (("low", low), ("high", high)) if given is None]
    if missing:
        open_end = any(f"exclusive{end}" in declared for end in ("Minimum", "Maximum"))
        why = "is open there" if open_end else "has no bound there"
        raise _WrongError(f"tune.space: {name!r} needs {' and '.join(missing)}", f"the option {why}")
    numbers = (low, high, value.get("step", 1))
    if any(isinstance(each, bool) or not isinstance(each, int | float) for each in numbers):
        raise _WrongError(f"tune.space: {name!r} has a range whose ends are no numbers", "or give a list of values")
    if not low <= high:
        raise _WrongError(f"tune.space: {name!r} runs from {low} to {high}", "low comes before high")
    is_log, step = value.get("log", False), value.get("step")
    if is_log and (low <= 0 or step is not None):
        raise _WrongError(
            f"tune.space: {name!r} cannot be logarithmic", "a logarithmic range begins above 0 and has no step"
        )
    kind = declared.get("type")
    is_whole = kind == "integer" or (kind is None and all(isinstance(each, int) for each in (low, high, step or 1)))
    return Range(float(low), float(high), None if step is None else float(step), bool(is_log), is_whole)


def _at(values: Any, key: Key) -> Any:
    for part in key:
        if isinstance(values, Mapping):
            values = values.get(part)
        elif isinstance(values, list) and isinstance(part, int) and part < len(values):
            values = values[part]
        else:
            return None
    return values
