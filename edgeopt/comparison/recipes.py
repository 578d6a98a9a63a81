"""In what the recipes, versions and plugins of two runs differ, as their locks tell."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from edgeopt.arrays import Json
from edgeopt.comparison.runs import ReadRun
from edgeopt.comparison.schema import Difference
from edgeopt.toml_lines import Key, key_lines

_NOT_COMPARED = ("name", "schema")


def recipe_differences(first: ReadRun, other: ReadRun) -> tuple[Difference, ...]:
    """Every value in which the resolved recipes differ, with its line in each.

    Passes are matched by the plugin that they use, and exports by their names, so that a step more in between moves
    nothing. Of a step that uses another plugin, that is said, and not that its options are others.
    """
    before, after = (
        {name: value for name, value in run.lock.recipe.items() if name not in _NOT_COMPARED} for run in (first, other)
    )
    texts = _Text.of(first), _Text.of(other)
    return tuple(
        Difference(
            key=_dotted(each.key_after if each.key_after is not None else each.key_before or ()),
            before=each.before,
            after=each.after,
            before_at=texts[0].place(each.key_before, each.before),
            after_at=texts[1].place(each.key_after, each.after),
        )
        for each in _differences(before, after, (), ())
    )


def version_differences(first: ReadRun, other: ReadRun) -> tuple[Difference, ...]:
    """Versions and origins of plugins that differ, and edgeopt's own."""
    pairs = (
        ("versions", first.lock.versions, other.lock.versions),
        ("plugins", first.lock.plugins, other.lock.plugins),
        ("edgeopt", {"version": first.report.edgeopt}, {"version": other.report.edgeopt}),
    )
    return tuple(
        Difference(key=f"{table}.{name}", before=before.get(name), after=after.get(name))
        for table, before, after in pairs
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    )


@dataclass(frozen=True)
class _Found:
    """A difference; a key is None where that side has nothing there."""

    key_before: Key | None
    key_after: Key | None
    before: Json
    after: Json


def _differences(before: Json, after: Json, key_before: Key, key_after: Key) -> Iterator[_Found]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        if before.get("use") != after.get("use"):
            yield _Found((*key_before, "use"), (*key_after, "use"), before.get("use"), after.get("use"))
            return
        for name in sorted({*before, *after}):
            yield from _differences(before.get(name), after.get(name), (*key_before, name), (*key_after, name))
    elif _are_steps(before) and _are_steps(after):
        yield from _steps(before, after, key_before, key_after)
    elif before != after:
        yield _Found(None if before is None else key_before, None if after is None else key_after, before, after)


def _are_steps(value: Json) -> bool:
    """Whether a value is a list of plugins with their options."""
    return isinstance(value, list) and all(isinstance(each, Mapping) and "use" in each for each in value)


def _steps(before: Sequence[Any], after: Sequence[Any], key_before: Key, key_after: Key) -> Iterator[_Found]:
    ours_named, theirs_named = ([str(step.get("name", step["use"])) for step in steps] for steps in (before, after))
    matcher = SequenceMatcher(None, ours_named, theirs_named, autojunk=False)
    for change, start, end, start_after, end_after in matcher.get_opcodes():
        ours, theirs = list(range(start, end)), list(range(start_after, end_after))
        if change == "equal" or (change == "replace" and len(ours) == len(theirs)):
            for one, other in zip(ours, theirs, strict=True):
                yield from _differences(before[one], after[other], (*key_before, one), (*key_after, other))
            continue
        for one in ours:
            yield _Found((*key_before, one, "use"), None, before[one]["use"], None)
        for other in theirs:
            yield _Found(None, (*key_after, other, "use"), None, after[other]["use"])


def _dotted(key: Key) -> str:
    return ".".join(str(part) for part in key)


@dataclass(frozen=True)
class _Text:
    """A recipe's text as it lies there now, empty where it is gone."""

    file: str = ""
    values: Mapping[str, Json] = field(default_factory=dict)
    lines: Mapping[Key, int] = field(default_factory=dict)

    @classmethod
    def of(cls, run: ReadRun) -> _Text:
        file = run.report.recipe.file
        if file is None:
            return cls()
        try:
            text = Path(file).read_text(encoding="utf-8-sig")
            return cls(file, tomllib.loads(text), key_lines(text))
        except (OSError, ValueError):  # moved, or no longer a recipe
            return cls()

    def place(self, key: Key | None, value: Json) -> str | None:
        """`FILE:LINE` where the text gives `key` this value; a plugin may be written without its table."""
        if key is None:
            return None
        for written in (key, key[:-1] if key[-1] == "use" else key):
            if written in self.lines and self._value(written) == value:
                return f"{self.file}:{self.lines[written]}"
        return None

    def _value(self, key: Key) -> Json:
        value: Any = self.values
        for part in key:
            value = value[part]
        return value
