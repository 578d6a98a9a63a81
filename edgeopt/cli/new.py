"""`edgeopt new plugin`, `edgeopt new recipe` and `edgeopt new example`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from edgeopt import scaffold
from edgeopt.cli.consoles import stdout
from edgeopt.plugins.registry import load_registry
from edgeopt.scaffold import examples, recipes


def write_plugin_package(name: str, out: Path, kind: str) -> None:
    """Writes a package and says what to do next.

    Raises `PluginError` for a name or kind that cannot be used, `StorageError` when its folder exists or cannot be
    written.
    """
    folder = scaffold.write_plugin_package(name, out, load_registry(), kind)
    _say_next(
        folder,
        f"pip install --editable '{folder}[test]'",
        f"pytest {folder}",
        f"edgeopt plugins show {scaffold.plugin_name(name)}",
    )


def write_recipe(name: str, out: Path, *, model: str, data: Path | None, runtimes: Sequence[str]) -> None:
    """Writes a recipe and says what to do next.

    Raises `UserError` for what there is not, and for everything that `edgeopt check` would say of the recipe.
    """
    file = recipes.write_recipe(name, out, load_registry(), model=model, data=data, runtimes=runtimes)
    _say_next(file, f"edgeopt check {file}", f"edgeopt run {file} --smoke", f"edgeopt run {file}")


def write_example(name: str | None, out: Path) -> None:
    """Writes an example and says what to do next; lists all of them where none is named.

    Raises `UserError` for one that there is not, `StorageError` when its folder exists or cannot be written.
    """
    if name is None:
        known = examples.examples()
        width = max(len(example.name) for example in known)
        typer.echo("\n".join(f"{example.name:<{width}}  {example.summary}" for example in known))
        return
    folder = examples.write_example(name, out)
    _say_next(folder, f"cd {folder}", "read README.md")


def _say_next(made: Path, *commands: str) -> None:
    console = stdout()
    for line in (f"wrote {made}", "next:", *(f"    {command}" for command in commands)):
        console.print(line, markup=False, soft_wrap=True)
