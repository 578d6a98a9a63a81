"""`edgeopt run` with several recipes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.cli.consoles import stderr, stdout
from edgeopt.errors import GateError, Problem, UserError, WorkerError
from edgeopt.pipeline.request import RunRequest

if TYPE_CHECKING:  # rich and what reads reports are loaded when something is shown
    from rich.table import Table

    from edgeopt.bench.recipe_process import RecipeOutcome
    from edgeopt.report.schema import Row


_NARROWEST = 80  # letters
RAY = "ray"


@dataclass(frozen=True)
class Cluster:
    """Which cluster of Ray, and what each recipe has of a node."""

    address: str
    cpus: float
    gpus: float


def run_recipes(recipes: Sequence[Path], request: RunRequest, workers: str | None, cluster: Cluster) -> None:
    """Runs several recipes and prints a table of what became of them; raises one error for all that went wrong: a bug
    weighs more than a mistake, and that more than a missed gate.
    """
    from edgeopt.bench.several import Several, run_several
    from edgeopt.report.tables import Unsqueezed

    if workers == RAY:
        outcomes = _on_cluster(recipes, request, cluster)
    else:
        outcomes = run_several(Several.here(recipes, request, _count(workers)), stderr(), _show_report)
    stdout().print(Unsqueezed(_table(outcomes), _NARROWEST), crop=False)
    for outcome in outcomes:
        for line in _wrong(outcome):
            stdout().print(f"{outcome.recipe.stem}: {line}", markup=False, soft_wrap=True, highlight=False)
    _raise(outcomes)


def _on_cluster(recipes: Sequence[Path], request: RunRequest, cluster: Cluster) -> tuple[RecipeOutcome, ...]:
    from edgeopt.bench.several import Several, run_several
    from edgeopt.workers.on_ray import RayResources, on_ray

    with on_ray(cluster.address, RayResources(cluster.cpus, cluster.gpus)) as place:
        several = Several.on_nodes(recipes, request, len(recipes), max(1, round(cluster.cpus)))
        several.require_same(place)
        return run_several(several, stderr(), _show_report, place)


def _count(workers: str | None) -> int:
    if workers is None:
        return 1
    if not workers.isdecimal() or int(workers) < 1:
        raise UserError(
            Problem(f"--workers {workers}: this is no number of workers", "as in --workers 2, or --workers ray")
        )
    return int(workers)


def _show_report(outcome: RecipeOutcome) -> None:
    """The report of a recipe that was run in this process."""
    from edgeopt.report import terminal
    from edgeopt.report.schema import Report

    if outcome.folder is not None:
        report = Report.from_json((outcome.folder / "report.json").read_text(encoding="utf-8"))
        terminal.render(report, stdout(), [outcome.folder / name for name in ("report.html", "report.json")])


def _table(outcomes: Sequence[RecipeOutcome]) -> Table:
    """A line for each file that ships."""
    from rich.text import Text

    from edgeopt.report import figures
    from edgeopt.report.tables import plain_table

    table = plain_table()
    for name in ("recipe", "", "file"):
        table.add_column(name, overflow="fold")
    for name in ("score", "size", "p50 ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for outcome in outcomes:
        ended = "done" if outcome.is_done else "missed" if outcome.gates and not outcome.problems else "failed"
        first = (Text(outcome.recipe.stem), Text(ended, style="green" if ended == "done" else "red"))
        for row in () if outcome.folder is None else _shipped(outcome.folder):
            p50 = f"{row.latency_ms.p50:.3g}" if row.latency_ms else ""
            size = figures.size(row.size_bytes) if row.size_bytes else ""
            table.add_row(*first, Text(row.file), figures.score(row.score), size, p50)
            first = (Text(), Text())
        if first[0]:
            table.add_row(*first)
    return table


def _wrong(outcome: RecipeOutcome) -> Iterator[str]:
    """What went wrong with a recipe, a line each."""
    yield from (bug.message for bug in outcome.bugs)
    yield from (str(problem) for problem in outcome.problems)
    yield from outcome.gates


def _shipped(folder: Path) -> Iterator[Row]:
    from edgeopt.report.schema import Report
    from edgeopt.types import Role

    rows = Report.from_json((folder / "report.json").read_text(encoding="utf-8")).rows
    yield from [row for row in rows if row.role is Role.OPTIMIZED] or rows


def _raise(outcomes: Sequence[RecipeOutcome]) -> None:
    bugs = [bug for each in outcomes for bug in each.bugs]
    problems = [problem for each in outcomes for problem in each.problems]
    gates = [f"{each.recipe.stem}: {gate}" for each in outcomes for gate in each.gates]
    if bugs:
        raise WorkerError(bugs[0].message, bugs[0].log)
    if problems:
        raise UserError(*problems)
    if gates:
        raise GateError(gates)
