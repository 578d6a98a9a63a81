"""`edgeopt check`. Writes with typer alone, as rich would take a tenth of the time that a check may."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import typer

from edgeopt.cli.help import colour
from edgeopt.pipeline import runner


def check_recipe(
    recipe: Path, *, overrides: Iterable[str], smoke: bool, out: Path, plugin_files: Iterable[Path]
) -> None:
    """Prints what a run would do: its stages, which of them are cached, and its files.

    Raises `RecipeError` with every problem.
    """
    plan = runner.check(recipe, overrides=overrides, smoke=smoke, plugin_files=plugin_files)
    store, folder = runner.store_of(out), runner.run_folder(plan, out)
    stages = plan.stages.values()
    width = max(len(stage.label) for stage in stages)
    lines = [typer.style("stages", bold=True)]
    for stage in stages:
        state = typer.style("cached", fg="green") if store.find(stage.key) else "to do"
        lines.append(f"  {stage.label:<{width}}  {state}")
    lines += ["", typer.style("files", bold=True)]
    lines += [f"  {folder / planned.file}" for planned in plan.exports]
    lines += ["", f"{recipe}: nothing wrong"]
    typer.echo("\n".join(lines), color=colour())
