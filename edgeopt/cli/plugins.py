"""`edgeopt plugins` and `edgeopt plugins show`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeopt.cli.consoles import stderr, stdout
from edgeopt.describe.toml import plugin_toml
from edgeopt.errors import PluginError, Problem, did_you_mean
from edgeopt.plugins.declarations import PLUGIN_TYPES
from edgeopt.plugins.registry import Registered, Registry, load_registry, missing_problem


def list_plugins(kind: str | None, plugin_files: Iterable[Path]) -> None:
    """Prints every plugin, or those of one kind, and below them what could not be loaded.

    Raises `PluginError` for a kind that does not exist.
    """
    kinds = [each.kind for each in PLUGIN_TYPES]
    if kind is not None and kind not in kinds:
        raise PluginError(Problem(f"--kind {kind}: there is no such kind of plugin", did_you_mean(kind, kinds)))
    registry = load_registry(plugin_files)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title, style in (("kind", None), ("name", "cyan"), ("what it is", None), ("from", "dim")):
        table.add_column(title, style=style, no_wrap=title in ("kind", "name"))
    for entry in registry:
        if kind in (None, entry.plugin.kind):
            table.add_row(entry.plugin.kind, entry.plugin.name, Text(_summary(entry)), Text(str(entry.origin)))
    stdout().print(table)
    _report_problems(registry, stderr())


def show_plugins(name: str, plugin_files: Iterable[Path]) -> None:
    """Prints every plugin of that name as TOML to paste.

    Raises `PluginError`, with the closest names, when there is none.
    """
    registry = load_registry(plugin_files)
    found = [entry for entry in registry if entry.plugin.name == name]
    if not found:
        known = {entry.plugin.name for entry in registry}
        raise PluginError(Problem(f"there is no plugin {name!r}", did_you_mean(name, known) or "see `edgeopt plugins`"))
    console = stdout()
    for entry in found:
        text = f"# {entry.plugin.kind} of {entry.origin}\n"
        if problem := missing_problem(entry.plugin):
            text += f"# {problem.message}: {problem.hint}\n"
        for line in (text + plugin_toml(entry.plugin)).splitlines():
            console.print(Text(line, style="dim" if line.startswith("#") else ""), soft_wrap=True)


def _summary(entry: Registered) -> str:
    problem = missing_problem(entry.plugin)
    return f"{entry.plugin.summary}\n{problem.hint}" if problem else entry.plugin.summary


def _report_problems(registry: Registry, console: Console) -> None:
    """What is wrong with plugins of others, which stops nobody from using the rest."""
    for problem in registry.problems:
        console.print(Text(f"\n{problem.message}", style="yellow"), soft_wrap=True)
        if problem.hint:
            console.print(Text(f"    {problem.hint}", style="cyan"), soft_wrap=True)
