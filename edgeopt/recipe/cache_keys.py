"""Keys of results: digests of all that a result depends on."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeopt._version import __version__
from edgeopt.arrays import Json
from edgeopt.fingerprint import digest, source_digest, versions_of
from edgeopt.plugins.registry import Registry, editable_source
from edgeopt.plugins.use import Use
from edgeopt.recipe.lookup import files_of, references


def keys_of(registry: Registry) -> Callable[..., str]:
    """A function that makes a key of a plugin (or none), its origin, versions and options, and
    everything else given.
    """
    core = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "edgeopt": __version__,
        **_core_source(),
    }
    sources: dict[Path, str] = {}

    def origin_of(use: Use[Any]) -> Json:
        origin = registry.origin(use.plugin)
        if origin.source and origin.source not in sources:
            sources[origin.source] = source_digest(origin.source)
        source = sources[origin.source] if origin.source else ""
        inner = [[each.plugin.name, *origin_of(each)] for each in references(use)]
        files = files_of(use.plugin, use.options)
        return [
            origin.name,
            origin.version,
            source,
            versions_of((*use.plugin.requires, *use.plugin.optional)),
            files,
            inner,
        ]

    def key_of(use: Use[Any] | None, *parts: Json) -> str:
        return digest([core, [use.to_json(), origin_of(use)] if use else None, *parts])

    return key_of


def report_source() -> str:
    """The source of the report's room, which no other stage depends on."""
    folder = editable_source("edgeopt")
    return source_digest(folder / "report") if folder else "report"


def _core_source() -> dict[str, str]:
    """The core's own source when edgeopt is an editable install: its developers must not meet stale results."""
    folder = editable_source("edgeopt")
    return {"source": source_digest(folder, without=("cli", "report", "testing"))} if folder else {}
