"""Finds plugins and looks them up by kind and name.

A third-party plugin that cannot be loaded is reported and left out; it never takes the command line down.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TypeVar, cast

import pluggy

from edgeopt.errors import Location, PluginError, Problem, did_you_mean
from edgeopt.fingerprint import installed_version
from edgeopt.plugins import hookspecs
from edgeopt.plugins.declarations import (
    PLUGIN_TYPES,
    Plugin,
)

P = TypeVar("P", bound=Plugin)


@dataclass(frozen=True)
class Origin:
    """Where a declaration comes from: a distribution with its version, or a local file."""

    name: str
    version: str
    module: str
    source: Path | None

    def __str__(self) -> str:
        return f"{self.name} {self.version}".strip()


@dataclass(frozen=True)
class Registered:
    """A declaration and where it comes from."""

    plugin: Plugin
    origin: Origin


class Registry:
    """The plugins of this process, by kind and name, and the problems met while they were loaded."""

    def __init__(self, registered: Iterable[Registered], problems: Iterable[Problem] = ()) -> None:
        self.problems: list[Problem] = list(problems)
        self._by_kind: dict[type[Plugin], dict[str, Registered]] = {kind: {} for kind in PLUGIN_TYPES}
        self._ambiguous: dict[tuple[type[Plugin], str], Problem] = {}
        for entry in registered:
            self._add(entry)

    def _add(self, entry: Registered) -> None:
        kind, name = type(entry.plugin), entry.plugin.name
        first = self._by_kind[kind].get(name)
        if first is None:
            self._by_kind[kind][name] = entry
            return
        problem = Problem(
            f"two plugins declare the {kind.kind} {name!r}: {first.origin} and {entry.origin}",
            "uninstall one of them, or ask its author to rename it",
        )
        self._ambiguous[kind, name] = problem
        self.problems.append(problem)

    def __iter__(self) -> Iterator[Registered]:
        for kind in PLUGIN_TYPES:
            for name in sorted(self._by_kind[kind]):
                yield self._by_kind[kind][name]

    def names(self, kind: type[Plugin]) -> list[str]:
        """The names of one kind, sorted."""
        return sorted(self._by_kind[kind])

    def get(self, kind: type[P], name: str, words: Iterable[str] = ()) -> P:
        """The plugin of that kind and name; `words` could have stood in its place.

        Raises `PluginError`, with the closest names, when there is none or when two distributions declare it.
        """
        if problem := self._ambiguous.get((kind, name)):
            raise PluginError(problem)
        entry = self._by_kind[kind].get(name)
        if entry is None:
            others = [other.kind for other in PLUGIN_TYPES if name in self._by_kind[other]]
            hint = (
                f"{name!r} is {_with_article(others[0])}, not {_with_article(kind.kind)}"
                if others
                else did_you_mean(name, [*words, *self._by_kind[kind]])
            )
            raise PluginError(Problem(f"there is no {kind.kind} {name!r}", hint or "see `edgeopt plugins`"))
        return cast("P", entry.plugin)

    def origin(self, plugin: Plugin) -> Origin:
        """Where `plugin` comes from."""
        return self._by_kind[type(plugin)][plugin.name].origin


def load_registry(plugin_files: Iterable[Path] = ()) -> Registry:
    """Loads every entry point of the group `edgeopt`, and the given local files.

    Raises `PluginError` for a local file that cannot be loaded (the user named it); a distribution that cannot be
    loaded becomes one of `Registry.problems`.
    """
    registered: list[Registered] = []
    problems: list[Problem] = []
    for entry_point in sorted(entry_points(group=hookspecs.GROUP), key=lambda point: (point.name, point.value)):
        origin = _origin(entry_point)
        try:
            registered += _declarations(entry_point.load(), origin)
        except Exception as error:  # any fault of somebody else's package: reported, not fatal
            problems.append(
                Problem(
                    f"plugin {entry_point.name!r} of {origin} cannot be loaded: {_brief(error)}",
                    "update or uninstall it",
                )
            )
    for file in plugin_files:
        module = _import_file(file)
        registered += _declarations(module, Origin(str(file), "", module.__name__, file))
    return Registry(registered, problems)


def missing_requirements(plugin: Plugin) -> list[str]:
    """The distributions that `plugin` needs and that are not installed."""
    return [name for name in plugin.requires if installed_version(name) is None]


def missing_problem(plugin: Plugin) -> Problem | None:
    """What to tell a user who asks for `plugin` without its packages, or None when they are there."""
    missing = missing_requirements(plugin)
    if not missing:
        return None
    names = ", ".join(missing)
    verb = "is" if len(missing) == 1 else "are"
    return Problem(
        f"{plugin.kind} {plugin.name!r} needs {names}, which {verb} not installed", f"pip install '{plugin.install}'"
    )


def _declarations(module: ModuleType, origin: Origin) -> list[Registered]:
    """All that one plugin module declares, checked."""
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    manager.register(module, name=origin.module)
    manager.check_pending()
    found: list[Registered] = []
    for kind in PLUGIN_TYPES:
        for declarations in getattr(manager.hook, kind.hook)():
            for plugin in declarations:
                if type(plugin) is not kind:
                    raise PluginError(f"{kind.hook} gave a {type(plugin).__name__}, not a {kind.__name__}")
                found.append(Registered(plugin, origin))
    if not found:
        raise PluginError(f"module {module.__name__} declares nothing", hint="mark its hooks with @edgeopt.hookimpl")
    return found


@cache
def editable_source(module: str) -> Path | None:
    """The folder of an import package that stands in a checkout, where its version says little; None for an installed
    one.

    Where the package stands is asked, not its metadata: from inside a checkout, Python may find the metadata of a build
    first.
    """
    spec = importlib.util.find_spec(module.partition(".")[0])
    folder = Path(spec.origin).parent if spec and spec.origin else None
    return None if folder is None or {"site-packages", "dist-packages"} & set(folder.parts) else folder


def _origin(entry_point: EntryPoint) -> Origin:
    if entry_point.dist is None:
        return Origin(entry_point.value, "", entry_point.module, None)
    name, version = _name_and_version(entry_point.dist)
    return Origin(name, version, entry_point.module, editable_source(entry_point.module))


@cache  # a distribution with several plugins is parsed once
def _name_and_version(distribution: Distribution) -> tuple[str, str]:
    metadata = distribution.metadata
    return metadata["Name"], metadata["Version"]


def _import_file(file: Path) -> ModuleType:
    """Imports a local plugin under a name that stays the same in every process, so that its classes can be pickled."""
    location = Location(str(file))
    if not file.is_file():
        raise PluginError(Problem("there is no such plugin file", "--plugin takes the path of a Python file", location))
    name = f"edgeopt_local_{file.stem}_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise PluginError(Problem("this is not a Python file", "--plugin takes the path of a Python file", location))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        line = error.lineno if isinstance(error, SyntaxError) else None
        raise PluginError(Problem(f"cannot be loaded: {_brief(error)}", None, Location(str(file), line))) from error
    return module


def _with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
