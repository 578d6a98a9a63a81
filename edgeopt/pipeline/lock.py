"""`lock.toml`: everything that decided a run's files, and the hashes of those files.

A run writes it into its folder; kept beside the recipe as `RECIPE.lock.toml`, it lets `edgeopt run --locked` refuse to
run where anything differs.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import tomli_w

from edgeopt.arrays import Json
from edgeopt.errors import Location, LockError, Problem
from edgeopt.fingerprint import file_digest
from edgeopt.plugins.registry import Origin
from edgeopt.plugins.versions import versions_behind
from edgeopt.recipe.plan import Plan

FILE = "lock.toml"


@dataclass(frozen=True)
class Lock:
    """What a lock holds. `artifacts` maps each file, relative to the run's folder, to its SHA-256, or to that of all
    its files together where it needs others; `parts` maps each of these to its own.
    """

    recipe: Mapping[str, Json]
    versions: Mapping[str, str]
    plugins: Mapping[str, str]
    data_fingerprint: str
    artifacts: Mapping[str, str]
    file: str = FILE
    parts: Mapping[str, str] = field(default_factory=dict)

    def to_toml(self) -> str:
        """The lock as text."""
        return "# Written by `edgeopt run`. Keep it beside the recipe for `edgeopt run --locked`.\n" + tomli_w.dumps(
            {
                "schema": 1,
                "data_fingerprint": self.data_fingerprint,
                "artifacts": dict(self.artifacts),
                **({"parts": dict(self.parts)} if self.parts else {}),
                "versions": dict(self.versions),
                "plugins": dict(self.plugins),
                "recipe": _without_none(self.recipe),
            }
        )


def make(plan: Plan, data_fingerprint: str, artifacts: Mapping[str, str], parts: Mapping[str, str]) -> Lock:
    """The lock of a run that has just finished; see `Lock` for `artifacts` and `parts`."""
    return Lock(
        _without_none(plan.resolved()),
        versions_behind(plan.uses, plan.framework),
        _plugins(plan),
        data_fingerprint,
        artifacts,
        parts=parts,
    )


def find(plan: Plan, folder: Path) -> Path:
    """The lock beside the recipe, or else the one of the run's folder.

    Raises `LockError` when there is neither.
    """
    recipe_file = plan.recipe.source.file
    beside = [Path(recipe_file).with_suffix(".lock.toml")] if recipe_file else []
    for file in (*beside, folder / FILE):
        if file.is_file():
            return file
    raise LockError(f"there is no lock for {plan.recipe.name!r}", hint="run once without --locked: it writes one")


def read(file: Path) -> Lock:
    """Reads a lock; raises `LockError` when it is damaged."""
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
        return Lock(
            values["recipe"],
            values["versions"],
            values["plugins"],
            values["data_fingerprint"],
            values["artifacts"],
            str(file),
            values.get("parts", {}),
        )
    except (OSError, ValueError, KeyError) as error:
        hint = "run once without --locked: it writes a new one"
        raise LockError(Problem(f"this is not a lock: {error}", hint, Location(str(file)))) from error


def compare_plan(lock: Lock, plan: Plan) -> None:
    """Raises `LockError` with everything about recipe, plugins and versions that is not as the lock says."""
    now = {"recipe": _without_none(plan.resolved()), **environment(plan)}
    then = {"recipe": lock.recipe, "versions": lock.versions, "plugins": lock.plugins}
    _raise(lock, _differences(then, now))


def environment(plan: Plan) -> dict[str, Json]:
    """What of a lock says where a plan is run: versions, and where plugins come from."""
    return {"versions": versions_behind(plan.uses, plan.framework), "plugins": _plugins(plan)}


def differing(then: Json, now: Json) -> tuple[str, ...]:
    """In words, every place in which two values of JSON differ."""
    return tuple(_differences(then, now))


def compare_data(lock: Lock, data_fingerprint: str) -> None:
    """Raises `LockError` when the images are not those of the lock."""
    _raise(lock, _differences({"data_fingerprint": lock.data_fingerprint}, {"data_fingerprint": data_fingerprint}))


def compare_artifacts(lock: Lock, artifacts: Mapping[str, str], parts: Mapping[str, str]) -> None:
    """Raises `LockError` with every file whose bytes are not those of the lock; of a file that needs others, the ones
    that differ are named.
    """
    _raise(lock, _different_files(lock, artifacts, parts))


def _different_files(lock: Lock, artifacts: Mapping[str, str], parts: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*lock.artifacts, *artifacts}):
        if lock.artifacts.get(name) == artifacts.get(name):
            continue
        then, now = _beside(name, lock.parts), _beside(name, parts)
        if then and now:
            yield from _differences({"parts": then}, {"parts": now})
        else:
            yield from _differences(
                {"artifacts": {name: lock.artifacts.get(name)}}, {"artifacts": {name: artifacts.get(name)}}
            )


def _beside(name: str, parts: Mapping[str, str]) -> dict[str, str]:
    """The parts in the folder of the file `name`."""
    folder = name.rpartition("/")[0]
    return {part: digest for part, digest in parts.items() if part.rpartition("/")[0] == folder}


def _raise(lock: Lock, differences: Iterator[str]) -> None:
    hint = "run without --locked to accept the change and write a new lock"
    if Path(lock.file).name != FILE:  # the one beside the recipe, which no run writes
        hint = f"to accept the change, run without --locked and copy {FILE} of the run's folder over {lock.file}"
    problems = [Problem(difference, hint, Location(lock.file)) for difference in differences]
    if problems:
        raise LockError(*problems)


def _differences(then: Json, now: Json, path: str = "") -> Iterator[str]:
    """Every leaf in which two values of JSON differ."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for name in sorted({*then, *now}):
            yield from _differences(then.get(name), now.get(name), f"{path}.{name}" if path else name)
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for index, (old, new) in enumerate(zip(then, now, strict=True)):
            yield from _differences(old, new, f"{path}.{index}")
    elif then != now:
        yield f"{path} is {now!r} and was {then!r}"


def _plugins(plan: Plan) -> dict[str, str]:
    """Where each plugin of a plan comes from: a distribution and its version, or a file and the SHA-256 of its text."""
    return {
        f"{use.plugin.kind} {use.plugin.name}": _said(plan.registry.origin(use.plugin))
        for use in sorted(plan.uses, key=lambda use: (use.plugin.kind, use.plugin.name))
    }


def _said(origin: Origin) -> str:
    if origin.is_file and origin.source is not None:
        return f"{origin.source.name} sha256:{file_digest(origin.source)}"
    return str(origin)


def _without_none(value: Json) -> Json:
    """The value without what TOML has no word for."""
    if isinstance(value, Mapping):
        return {name: _without_none(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_without_none(inner) for inner in value]
    return value
