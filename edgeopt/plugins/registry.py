"""Finds plugins and looks them up by kind and name.

A third-party plugin that cannot be loaded is reported and left out; it never takes the command line down.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

import pluggy

from edgeopt._version import __version__
from edgeopt.errors import Location, PluginError, Problem, did_you_mean
from edgeopt.fingerprint import installed_version
from edgeopt.plugins import hookspecs, own_tasks
from edgeopt.plugins.accelerator import Accelerator
from edgeopt.plugins.declarations import PLUGIN_TYPES, ExporterPlugin, Plugin, ReaderPlugin, kind_of
from edgeopt.plugins.former_names import tell_former_names
from edgeopt.plugins.use import default_references, misplaced_references

P = TypeVar("P", bound=Plugin)


@dataclass(frozen=True)
class Origin:
    """Where a declaration comes from: a distribution with its version, whose entry point says `entry`, or a local
    file.
    """

    name: str
    version: str
    module: str
    source: Path | None
    entry: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.version}".strip()

    @property
    def is_file(self) -> bool:
        """Whether it is a local file, which the user named, and not an installed distribution."""
        return not self.entry


_OWN = Origin("edgeopt", __version__, own_tasks.__name__, None, own_tasks.__name__)  # its source is in every key


@dataclass(frozen=True)
class Registered:
    """A declaration and where it comes from."""

    plugin: Plugin
    origin: Origin


@dataclass(frozen=True)
class _Claim:
    """What no two plugins of a kind may answer to: the ending that a reader opens, the format that an exporter writes
    of models of a framework.
    """

    kind: str
    name: str
    framework: str = ""

    def __str__(self) -> str:
        if self.kind == ExporterPlugin.kind:
            return f"exporters of {self.framework} models write the format {self.name!r}"
        return "readers open folders" if self.name == "/" else f"readers open files that end in {self.name!r}"


def _claims(plugin: Plugin) -> Iterator[_Claim]:
    if isinstance(plugin, ReaderPlugin):
        yield from (_Claim(plugin.kind, suffix) for suffix in {each.lower() for each in plugin.suffixes})
    elif isinstance(plugin, ExporterPlugin):
        yield _Claim(plugin.kind, plugin.written_format, plugin.framework)


class Registry:
    """The plugins of this process, by kind and name, and the problems met while they were loaded.

    A name that two plugins of a kind have, an ending that two readers open, and a format that two exporters of one
    framework write, are problems, and an error for whoever asks for them: none is chosen silently.
    """

    def __init__(self, registered: Iterable[Registered], problems: Iterable[Problem] = ()) -> None:
        self.problems: list[Problem] = list(problems)
        self._unloaded = tuple(self.problems)
        self._by_kind: dict[type[Plugin], dict[str, Registered]] = {kind: {} for kind in PLUGIN_TYPES}
        self._ambiguous: dict[tuple[type[Plugin], str], Problem] = {}
        for entry in registered:
            self._add(entry)
        self._claimed: dict[_Claim, Registered] = {}
        self._clashes: dict[_Claim, Problem] = {}
        for entry in self:
            for claim in _claims(entry.plugin):
                self._claim(claim, entry)

    def _add(self, entry: Registered) -> None:
        kind, name = kind_of(entry.plugin), entry.plugin.name
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

    def _claim(self, claim: _Claim, entry: Registered) -> None:
        first = self._claimed.setdefault(claim, entry)
        if first is entry:
            return
        problem = Problem(
            f"two {claim}: {first.plugin.name!r} of {first.origin} and {entry.plugin.name!r} of {entry.origin}",
            "uninstall one of them, or ask its author to change that",
        )
        self._clashes[claim] = problem
        self.problems.append(problem)

    def reader(self, suffix: str) -> ReaderPlugin | None:
        """The reader of files that end in `suffix`, "/" for a folder, or None.

        Raises `PluginError` where two readers declare it.
        """
        return cast("ReaderPlugin | None", self._claimant(_Claim(ReaderPlugin.kind, suffix.lower())))

    def exporter(self, written_format: str, framework: str) -> ExporterPlugin | None:
        """The exporter that writes a format of models of a framework, or None.

        Raises `PluginError` where two exporters declare it.
        """
        claim = _Claim(ExporterPlugin.kind, written_format, framework)
        return cast("ExporterPlugin | None", self._claimant(claim))

    def _claimant(self, claim: _Claim) -> Plugin | None:
        if problem := self._clashes.get(claim):
            raise PluginError(problem)
        entry = self._claimed.get(claim)
        return entry.plugin if entry else None

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
            missing = Problem(f"there is no {kind.kind} {name!r}", hint or "see `edgeopt plugins`")
            unloaded = (problem for problem in self._unloaded if _may_hold(problem, kind))
            raise PluginError(missing, *unloaded)  # one of those may be the plugin that was meant
        return cast("P", entry.plugin)

    def wrong_defaults(self, plugin: Plugin) -> dict[str, Problem]:
        """Options whose default refers to a plugin that is not there, which is an error of their author's, by name.

        Where a package could not be loaded that may bring the plugin, none is known to be wrong.
        """
        return {
            option: Problem(
                f"{plugin.kind} {plugin.name!r} of {self.origin(plugin)}: the default of its option {option!r} is "
                f"{name!r}, and there is no {kind.kind} of that name",
                did_you_mean(name, self._by_kind[kind]),
            )
            for option, kind, name in default_references(plugin.options)
            if name not in self._by_kind[kind] and not any(_may_hold(problem, kind) for problem in self._unloaded)
        }

    def origin(self, plugin: Plugin) -> Origin:
        """Where `plugin` comes from."""
        return self._by_kind[kind_of(plugin)][plugin.name].origin


def load_registry(plugin_files: Iterable[Path] = ()) -> Registry:
    """Loads every entry point of the group `edgeopt`, and the given local files.

    Raises `PluginError` for a local file that cannot be loaded (the user named it); a distribution that cannot be
    loaded becomes one of `Registry.problems`.
    """
    tell_former_names()
    loader = _Loader()
    loader.add(own_tasks, _OWN)
    for entry_point in sorted(entry_points(group=hookspecs.GROUP), key=lambda point: (point.name, point.value)):
        origin = _origin(entry_point)
        try:
            loader.add(entry_point.load(), origin)
        except (Exception, SystemExit) as error:  # any fault of somebody else's package: reported, not fatal
            loader.problems.append(
                Problem(
                    f"plugin {entry_point.name!r} of {origin} cannot be loaded: {_brief(error)}",
                    "update or uninstall it",
                )
            )
    for whole, file in {file.resolve(): file for file in plugin_files}.items():
        module = _import_file(file)
        loader.add(module, Origin(str(whole), "", module.__name__, whole))  # a worker's folder may be another
    registry = Registry(loader.registered, loader.problems)
    for entry in registry:
        problems = registry.wrong_defaults(entry.plugin).values()
        if problems and entry.origin.is_file:
            raise PluginError(*problems)
        registry.problems += problems
    return registry


def load_origins(origins: Iterable[Origin]) -> Registry:
    """Loads the modules that an earlier load found, and no others; raises what they raise."""
    tell_former_names()
    loader = _Loader()
    for origin in origins:
        if origin.entry:
            loader.add(EntryPoint(origin.name, origin.entry, hookspecs.GROUP).load(), origin)
        else:
            assert origin.source is not None  # a local file
            loader.add(_import_file(origin.source), origin)
    return Registry(loader.registered, loader.problems)


def missing_requirements(asked: Plugin | Accelerator) -> list[str]:
    """The distributions that a plugin or an accelerator needs and that are not installed."""
    return [name for name in asked.requires if installed_version(name) is None]


def missing_problem(asked: Plugin | Accelerator) -> Problem | None:
    """What to tell a user who asks for a plugin or an accelerator without its packages, or None when they are there."""
    missing = missing_requirements(asked)
    if not missing:
        return None
    names = ", ".join(missing)
    verb = "is" if len(missing) == 1 else "are"
    return Problem(
        f"{asked.kind} {asked.name!r} needs {names}, which {verb} not installed", f"pip install '{asked.install}'"
    )


class _Loader:
    """Calls the hooks of modules, and keeps what they declare with where it comes from.

    One plugin manager knows all modules and checks the arguments of their hooks. The hooks are not called through it:
    what a call gives is not marked with its module, and the first that raises would take the others with it.
    """

    def __init__(self) -> None:
        self.registered: list[Registered] = []
        self.problems: list[Problem] = []
        self._manager = pluggy.PluginManager(hookspecs.GROUP)
        self._manager.add_hookspecs(hookspecs)

    def add(self, module: ModuleType, origin: Origin) -> None:
        """Keeps all that a module declares; a hook that this edgeopt does not know is a problem, and the rest counts.

        Raises `PluginError` when it declares nothing, or something else than its hooks are for.
        """
        if self._manager.is_registered(module):
            return  # two entry points of one module
        name = self._manager.register(module, name=origin.module)
        callers = {caller.name: caller for caller in self._manager.get_hookcallers(module) or ()}
        found: list[Registered] = []
        for kind in PLUGIN_TYPES:
            caller = callers.get(kind.hook)
            for implementation in caller.get_hookimpls() if caller else ():
                if implementation.plugin_name == name:
                    found += [Registered(plugin, origin) for plugin in _given(implementation.function(), kind)]
        if origin.name != _OWN.name:  # ours are built when they are used, which is most of the time that a check takes
            for entry in found:
                _require_options(entry)
        known = {kind.hook for kind in PLUGIN_TYPES}
        unknown = [
            Problem(
                f"{origin} has the hook {hook!r}, which edgeopt {__version__} does not know",
                _meant(hook, known) or "it is of a newer edgeopt: update edgeopt",
            )
            for hook in callers
            if hook not in known and not all(each.optionalhook for each in callers[hook].get_hookimpls())
        ]
        if not found:
            raise PluginError(*unknown, Problem(f"{origin} declares nothing", "mark its hooks with @edgeopt.hookimpl"))
        self.problems += unknown
        self.registered += found


def _given(declarations: Any, kind: type[Plugin]) -> Iterator[Plugin]:
    """What a hook of `kind` gave, checked."""
    if declarations is None:
        raise PluginError(f"{kind.hook} gave nothing", hint=f"let it yield a {kind.__name__}")
    for plugin in declarations:
        if not isinstance(plugin, kind):
            raise PluginError(f"{kind.hook} gave a {type(plugin).__name__}, not a {kind.__name__}")
        if misplaced := misplaced_references(plugin.options):
            raise PluginError(
                f"{plugin.kind} {plugin.name!r}: a plugin is referred to inside option {', '.join(misplaced)}",
                hint="let an option of its own refer to it: inside lists and tables none is looked up",
            )
        yield plugin


def _require_options(entry: Registered) -> None:
    """Raises `PluginError` where pydantic can make nothing of a plugin's options."""
    try:
        entry.plugin.options.model_rebuild()
    except Exception as error:
        message = f"{entry.plugin.kind} {entry.plugin.name!r} of {entry.origin}: its options cannot be used"
        raise PluginError(f"{message}: {_brief(error)}") from error


def _meant(hook: str, known: Iterable[str]) -> str | None:
    """Which hook a misspelt name means; hooks are much alike, so only a letter or two may differ."""
    close = difflib.get_close_matches(hook, known, n=1, cutoff=0.9)
    return did_you_mean(hook, close) if close else None


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
        return Origin(entry_point.value, "", entry_point.module, None, entry_point.value)
    name, version = _name_and_version(entry_point.dist)
    return Origin(name, version, entry_point.module, editable_source(entry_point.module), entry_point.value)


@cache  # a distribution with several plugins is parsed once
def _name_and_version(distribution: Distribution) -> tuple[str, str]:
    metadata = distribution.metadata
    return metadata["Name"], metadata["Version"]


def _import_file(file: Path) -> ModuleType:
    """Imports a local plugin under a name that stays the same in every process, so that its classes can be pickled."""
    location = Location(str(file))
    if not file.is_file():
        raise PluginError(Problem("there is no such plugin file", "a plugin is the path of a Python file", location))
    name = f"edgeopt_local_{file.stem}_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise PluginError(Problem("this is not a Python file", "a plugin is the path of a Python file", location))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        line = error.lineno if isinstance(error, SyntaxError) else None
        raise PluginError(Problem(f"cannot be loaded: {_brief(error)}", None, Location(str(file), line))) from error
    return module


def _may_hold(problem: Problem, kind: type[Plugin]) -> bool:
    """Whether what could not be loaded may have declared a plugin of that kind: not where another's hook is named."""
    hooks = [each.hook for each in PLUGIN_TYPES if each.hook in f"{problem.message} {problem.hint or ''}"]
    return not hooks or kind.hook in hooks


def _with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
