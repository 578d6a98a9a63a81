"""`edgeopt check`. Writes with typer alone, as rich would take a tenth of the time that a check may."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import typer

from edgeopt.cli.help import colour
from edgeopt.pipeline import runner
from edgeopt.recipe.notes import notes
from edgeopt.recipe.plan import Plan

_SHOWN_CLASSES = 12


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
    lines += surveyed(plan)
    if told := notes(plan):
        lines += ["", *(f"{typer.style('note', fg='yellow')}  {note}" for note in told)]
    lines += ["", f"{recipe}: nothing wrong"]
    typer.echo("\n".join(lines), color=colour())


def surveyed(plan: Plan) -> list[str]:
    """The classes and counts of the data set, where it can tell them without reading an image."""
    survey = plan.survey()
    if survey is None:
        return []
    width = max(map(len, survey.counts))
    lines = ["", typer.style("images", bold=True)]
    for split, counts in survey.counts.items():
        lines.append(f"  {split:<{width}}  {_counted(counts)}")
    lines += [f"  {typer.style('note', fg='yellow')}  {warning}" for warning in survey.warnings]
    return lines


def _counted(counts: Mapping[str, int]) -> str:
    total, few = sum(counts.values()), list(counts.items())[:_SHOWN_CLASSES]
    shown = ", ".join(f"{name} {count}" for name, count in few)
    if len(counts) <= _SHOWN_CLASSES:
        return f"{total} of {len(counts)} classes: {shown}"
    spread = f"{min(counts.values())} to {max(counts.values())} of each"
    return f"{total} of {len(counts)} classes, {spread}: {shown}, …"
