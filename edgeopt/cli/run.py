"""`edgeopt run`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edgeopt.cli.consoles import stderr, stdout
from edgeopt.errors import EdgeoptError, GateError, UserError
from edgeopt.options import MeasureSettings
from edgeopt.pipeline import machines, runner
from edgeopt.report import terminal


def run_recipe(
    recipe: Path,
    *,
    overrides: Iterable[str],
    smoke: bool,
    fresh: bool,
    measure_again: bool,
    locked: bool,
    devices: bool,
    out: Path,
    plugin_files: Iterable[Path],
) -> None:
    """Runs a recipe and prints its report, and benchmarks its files where it says so.

    Raises `GateError` when a gate was missed, and what went wrong with files that could not be made or measured, and
    with devices.
    """
    plugin_files = tuple(plugin_files)
    result = runner.run(
        recipe,
        overrides=overrides,
        smoke=smoke,
        fresh=fresh,
        measure_again=measure_again,
        locked=locked,
        devices=devices,
        out=out,
        plugin_files=plugin_files,
        console=stderr(),
    )
    files = [result.folder / name for name in ("report.html", "report.json")]
    terminal.render(result.report, stdout(), files)
    for note in result.notes:
        stderr().print(note, markup=False, soft_wrap=True)
    if not any(row.error for row in result.report.rows):  # a device that is away keeps nobody from it
        _sweep(result, plugin_files, again=measure_again or fresh)
    if result.failures:
        raise _one_error(result.failures)
    if not result.gates_passed:
        raise GateError(gate.message for gate in result.report.gates if not gate.passed)


def _sweep(result: runner.RunResult, plugin_files: Iterable[Path], *, again: bool) -> None:
    """Benchmarks the files of a run along the axes that its recipe names, unless that is done; a smoke run does not."""
    resolved = result.report.recipe.resolved
    measure = MeasureSettings.model_validate(resolved.get("measure", {}))
    is_helper = resolved.get("trainer", {}).get("num_nodes", 1) > 1 and machines.number_of_this() != 0
    if measure.sweep is None or result.report.smoke or is_helper:
        return
    from edgeopt.bench import terminal as bench_terminal  # only for recipes with a sweep
    from edgeopt.bench.request import swept
    from edgeopt.bench.run import CSV, FOLDER, JSON, PAGE, is_measured, run_bench

    request = swept(result.folder, measure, plugin_files)
    if not again and is_measured(request):
        stdout().print(str(result.folder / FOLDER / PAGE), markup=False, soft_wrap=True)
        return
    benched = run_bench(request, stderr())
    bench_terminal.render(benched.bench, stdout(), [benched.folder / name for name in (PAGE, JSON, CSV)])


def _one_error(failures: Iterable[EdgeoptError]) -> EdgeoptError:
    """The failures of several files as one error; a bug weighs more than a mistake."""
    bugs = [failure for failure in failures if not isinstance(failure, UserError)]
    problems = [problem for failure in failures if isinstance(failure, UserError) for problem in failure.problems]
    return bugs[0] if bugs else UserError(*problems)
