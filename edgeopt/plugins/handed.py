"""What a parent hands to its workers whole, such as a finished plan: a pickle in which every plugin stands by its name.

A declaration is made of functions and cannot be pickled itself. The file says first where the plugins that it names are
declared, and a worker imports those modules and no others. Like everything in the store, such files are for processes
of one's own.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, TypeVar

from edgeopt.errors import PluginError
from edgeopt.files import storage_errors
from edgeopt.plugins.declarations import PLUGIN_TYPES, Plugin, kind_of
from edgeopt.plugins.registry import Origin, Registry, load_origins

T = TypeVar("T")

_REGISTRY = "registry"
_Reference = tuple[str, str, str]  # what is meant ("plugin", or "options" for its option model), kind and name


def hand_over(value: object, file: Path, registry: Registry) -> None:
    """Writes `value`, whose plugins are of `registry`, for `handed` to read.

    Raises `PluginError` for options that cannot be pickled.
    """
    body = io.BytesIO()
    pickler = _Pickler(body, registry)
    try:
        pickler.dump(value)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        message = f"an option cannot be handed to another process: {error}"
        raise PluginError(message, hint="make options of plain values, and of classes that a module names") from error
    with storage_errors(file), file.open("wb") as stream:
        pickle.dump(tuple(pickler.origins), stream)
        stream.write(body.getbuffer())


def handed(kind: type[T], file: Path) -> T:
    """What `hand_over` wrote of a `kind`. Its registry knows the plugins of the modules that are named in it."""
    with file.open("rb") as stream:
        registry = load_origins(pickle.load(stream))
        value = _Unpickler(stream, registry).load()
    if not isinstance(value, kind):
        raise TypeError(f"{file} holds a {type(value).__name__}, not a {kind.__name__}")
    return value


class _Pickler(pickle.Pickler):
    """Collects in `origins` where the plugins come from that it meets."""

    def __init__(self, stream: io.BytesIO, registry: Registry) -> None:
        super().__init__(stream)
        self.origins: dict[Origin, None] = {}
        self._registry = registry
        self._of_options: dict[type, Plugin] = {entry.plugin.options: entry.plugin for entry in registry}

    def persistent_id(self, value: Any) -> str | _Reference | None:
        if isinstance(value, Plugin):
            return self._reference("plugin", value)
        if isinstance(value, type) and value in self._of_options:  # one declared in a hook has no importable name
            return self._reference("options", self._of_options[value])
        return _REGISTRY if isinstance(value, Registry) else None

    def _reference(self, what: str, plugin: Plugin) -> _Reference:
        self.origins[self._registry.origin(plugin)] = None
        return what, kind_of(plugin).kind, plugin.name


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: Any, registry: Registry) -> None:
        super().__init__(stream)
        self._registry = registry

    def persistent_load(self, reference: str | _Reference) -> Any:
        if isinstance(reference, str):
            return self._registry
        what, kind_name, name = reference
        kind = next(kind for kind in PLUGIN_TYPES if kind.kind == kind_name)
        plugin = self._registry.get(kind, name)
        return plugin if what == "plugin" else plugin.options
