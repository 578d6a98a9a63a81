"""Keys of results: digests of all that a result depends on, and of nothing else."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgeopt.arrays import Json
from edgeopt.fingerprint import digest, source_digest
from edgeopt.plugins.registry import Registry, editable_source
from edgeopt.plugins.use import Use, references
from edgeopt.plugins.versions import versions_behind
from edgeopt.recipe.lookup import files_of

_NOT_IN_RESULTS = (
    "applications",
    "bench",
    "cli",
    "comparison",
    "conversion",
    "describe",
    "report",
    "scaffold",
    "serving",
    "testing",
    "tracking",
)


class Keys:
    """Makes keys for one plan; each source folder and each plugin's files are looked at once."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._core = {"machine": platform.machine(), **_core_source()}
        self._sources: dict[Path, str] = {}

    def key(self, use: Use[Any] | None, *parts: Json, framework: str = "", without: Iterable[str] = ()) -> str:
        """A key of a plugin (or none), its origin, versions and options, and everything else given.

        `framework` is that of the model, where the result is made with one. `without` names options that the result
        does not depend on.
        """
        uses = [use] if use else []
        unread = set(without)
        said = [
            [{name: value for name, value in use.to_json().items() if name not in unread}, self._origin(use)]
            for use in uses
        ]
        return digest([self._core, versions_behind(uses, framework), said, *parts])

    def told(self, use: Use[Any]) -> Json:
        """What a key says of a plugin whose results go into those of another: its options and where it comes from."""
        return [use.to_json(), self._origin(use)]

    def _origin(self, use: Use[Any]) -> Json:
        origin = self._registry.origin(use.plugin)
        return [
            origin.name,
            origin.version,
            self._source(origin.source) if origin.source else "",
            [[name, self._library(name)] for name in sorted(set(use.plugin.libraries))],
            files_of(use.plugin, use.options),
            [[each.plugin.name, self._origin(each)] for each in references(use)],
        ]

    def _source(self, folder: Path) -> str:
        if folder not in self._sources:
            self._sources[folder] = source_digest(folder)
        return self._sources[folder]

    def _library(self, module: str) -> str:
        """The source of an import package, wherever it is installed; "none" where it is not."""
        spec = importlib.util.find_spec(module.partition(".")[0])
        if spec is None or spec.origin is None:
            return "none"
        file = Path(spec.origin)
        return self._source(file.parent if file.name == "__init__.py" else file)


def report_source() -> str:
    """The source of the report's room, which no other stage depends on."""
    folder = editable_source("edgeopt")
    return source_digest(folder / "report") if folder else "report"


def _core_source() -> dict[str, str]:
    """The core's own source when edgeopt is an editable install: its developers must not meet stale results."""
    folder = editable_source("edgeopt")
    return {"source": source_digest(folder, without=_NOT_IN_RESULTS)} if folder else {}
