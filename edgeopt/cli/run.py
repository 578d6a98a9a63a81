"""`edgeopt run`."""

from __future__ import annotations

from pathlib import Path

from edgeopt.cli.consoles import stderr, stdout
from edgeopt.errors import EdgeoptError, GateError, one_error
from edgeopt.pipeline import runner
from edgeopt.pipeline.request import RunRequest, RunResult
from edgeopt.report import terminal


def run_recipe(request: RunRequest) -> None:
    """Runs a recipe and prints its report, and benchmarks its files where it says so.

    Raises `GateError` when a gate was missed, and what went wrong with files that could not be made or measured, and
    with devices.
    """
    result = runner.run(request, stderr())
    files = [result.folder / name for name in ("report.html", "report.json")]
    terminal.render(result.report, stdout(), files)
    for note in result.notes:
        stderr().print(note, markup=False, soft_wrap=True)
    failures = (*result.failures, *_sweep(result, request))
    if failures:
        raise one_error(failures)
    if not result.gates_passed:
        raise GateError(gate.message for gate in result.report.gates if not gate.passed)


def _sweep(result: RunResult, request: RunRequest) -> tuple[EdgeoptError, ...]:
    """Benchmarks what the recipe names, and prints it; returns what went wrong where nothing was measured."""
    if "sweep" not in result.report.recipe.resolved.get("measure", {}):
        return ()
    from edgeopt.bench import terminal as bench_terminal  # only for recipes with a sweep
    from edgeopt.bench.run import CSV, JSON, PAGE
    from edgeopt.bench.whole_recipe import sweep

    done = sweep(result, request, stderr())
    if isinstance(done, Path):
        stdout().print(str(done), markup=False, soft_wrap=True)
    elif done is not None:
        bench_terminal.render(done.bench, stdout(), [done.folder / name for name in (PAGE, JSON, CSV)])
        return done.failures
    return ()
