"""`edgeopt new plugin`."""

from __future__ import annotations

from pathlib import Path

from edgeopt import scaffold
from edgeopt.cli.consoles import stdout
from edgeopt.plugins.registry import load_registry


def write_plugin_package(name: str, out: Path, kind: str) -> None:
    """Writes a package and says what to do next.

    Raises `PluginError` for a name or kind that cannot be used, `StorageError` when its folder exists or cannot be
    written.
    """
    folder = scaffold.write_plugin_package(name, out, load_registry(), kind)
    console = stdout()
    for line in (
        f"wrote {folder}",
        "next:",
        f"    pip install --editable '{folder}[test]'",
        f"    pytest {folder}",
        f"    edgeopt plugins show {scaffold.plugin_name(name)}",
    ):
        console.print(line, markup=False, soft_wrap=True)
