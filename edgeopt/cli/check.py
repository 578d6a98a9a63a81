"""`edgeopt check`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.table import Table

from edgeopt import runner
from edgeopt.cli.consoles import stdout
from edgeopt.plan import Plan
from edgeopt.store import Store


def check_recipe(
    recipe: Path, *, overrides: Iterable[str], smoke: bool, out: Path, plugin_files: Iterable[Path]
) -> None:
    """Prints what a run would do.

    Raises `RecipeError` with every problem.
    """
    plan = runner.check(recipe, overrides=overrides, smoke=smoke, plugin_files=plugin_files)
    console = stdout()
    console.print(_stages(plan, runner.store_of(out)))
    console.print("\nfiles", style="bold")
    folder = runner.run_folder(plan, out)
    for planned in plan.exports:
        console.print(f"{folder / planned.file}", markup=False, soft_wrap=True)
    console.print(f"\n{recipe}: nothing wrong", markup=False, soft_wrap=True)


def _stages(plan: Plan, store: Store) -> Table:
    """The stages in the order of a run, and which of them are done."""
    table = Table(box=None, pad_edge=False, padding=(0, 4, 0, 0), header_style="bold")
    table.add_column("stage")
    table.add_column("")
    for stage in plan.stages.values():
        table.add_row(stage.label, "cached" if store.find(stage.key) else "to do")
    return table
