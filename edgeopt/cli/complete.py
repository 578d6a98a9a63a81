"""What the shell offers when Tab is pressed; an error here offers nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def recipes(incomplete: str) -> list[str]:
    """TOML files and folders that begin with what was typed."""
    return [_shown(path) for path in _beginning_with(incomplete) if path.is_dir() or path.suffix == ".toml"]


def runs(incomplete: str) -> list[str]:
    """Folders that begin with what was typed."""
    return [_shown(path) for path in _beginning_with(incomplete) if path.is_dir()]


def plugin_kinds(incomplete: str) -> list[str]:
    """The kinds of plugins."""
    from edgeopt.plugins.declarations import PLUGIN_TYPES  # pydantic, only when somebody asks

    return [kind.kind for kind in PLUGIN_TYPES if kind.kind.startswith(incomplete)]


def plugin_names(incomplete: str) -> list[tuple[str, str]]:
    """The names of all plugins, with their summaries."""
    from edgeopt.plugins.registry import load_registry  # pydantic and pluggy, only when somebody asks

    named = {entry.plugin.name: entry.plugin.summary for entry in load_registry()}
    return [(name, summary) for name, summary in sorted(named.items()) if name.startswith(incomplete)]


def probes(incomplete: str) -> list[tuple[str, str]]:
    """What `edgeopt sensitivity` can try on layers, with summaries."""
    from edgeopt.plugins.declarations import ProbePlugin
    from edgeopt.plugins.registry import load_registry

    named = [entry.plugin for entry in load_registry() if isinstance(entry.plugin, ProbePlugin)]
    return [(probe.name, probe.summary) for probe in named if probe.name.startswith(incomplete)]


def exporters(incomplete: str) -> list[tuple[str, str]]:
    """What writes files, with summaries."""
    from edgeopt.plugins.declarations import ExporterPlugin
    from edgeopt.plugins.registry import load_registry

    named = [entry.plugin for entry in load_registry() if isinstance(entry.plugin, ExporterPlugin)]
    return [(each.name, each.summary) for each in named if each.name.startswith(incomplete)]


def targets(incomplete: str) -> list[tuple[str, str]]:
    """Accelerators that `edgeopt check --target` knows, with summaries."""
    from edgeopt.plugins.declarations import ExporterPlugin
    from edgeopt.plugins.registry import load_registry

    exporters = [entry.plugin for entry in load_registry() if isinstance(entry.plugin, ExporterPlugin)]
    named = {each.name: each.summary for plugin in exporters for each in plugin.accelerators}
    return [(name, summary) for name, summary in sorted(named.items()) if name.startswith(incomplete)]


def examples(incomplete: str) -> list[tuple[str, str]]:
    """What `edgeopt new example` can write, with summaries."""
    from edgeopt.scaffold.examples import examples as known

    return [(each.name, each.summary) for each in known() if each.name.startswith(incomplete)]


def _beginning_with(incomplete: str) -> Iterable[Path]:
    folder, _, start = incomplete.rpartition("/")
    root = Path(folder + "/" if incomplete.startswith("/") else folder or ".").expanduser()
    if not root.is_dir():
        return []
    return sorted(
        path for path in root.iterdir() if path.name.startswith(start) and path.name[0] not in "._"[: not start]
    )


def _shown(path: Path) -> str:
    return f"{path}/" if path.is_dir() else str(path)
