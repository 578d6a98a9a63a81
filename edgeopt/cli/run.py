"""`edgeopt run`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edgeopt.cli.consoles import stderr, stdout
from edgeopt.errors import EdgeoptError, GateError, UserError
from edgeopt.pipeline import runner
from edgeopt.report import terminal


def run_recipe(
    recipe: Path,
    *,
    overrides: Iterable[str],
    smoke: bool,
    fresh: bool,
    measure_again: bool,
    locked: bool,
    out: Path,
    plugin_files: Iterable[Path],
) -> None:
    """Runs a recipe and prints its report.

    Raises `GateError` when a gate was missed, and what went wrong with files that could not be made or measured.
    """
    result = runner.run(
        recipe,
        overrides=overrides,
        smoke=smoke,
        fresh=fresh,
        measure_again=measure_again,
        locked=locked,
        out=out,
        plugin_files=plugin_files,
        console=stderr(),
    )
    files = [result.folder / name for name in ("report.html", "report.json")]
    terminal.render(result.report, stdout(), files)
    for note in result.notes:
        stderr().print(note, markup=False, soft_wrap=True)
    if result.failures:
        raise _one_error(result.failures)
    if not result.gates_passed:
        raise GateError(gate.message for gate in result.report.gates if not gate.passed)


def _one_error(failures: Iterable[EdgeoptError]) -> EdgeoptError:
    """The failures of several files as one error; a bug weighs more than a mistake."""
    bugs = [failure for failure in failures if not isinstance(failure, UserError)]
    problems = [problem for failure in failures if isinstance(failure, UserError) for problem in failure.problems]
    return bugs[0] if bugs else UserError(*problems)
