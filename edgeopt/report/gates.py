"""Whether the recipe's gates were reached. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgeopt.options import Gates
from edgeopt.report.compare import baseline_of, compare
from edgeopt.report.schema import GATES_FROM_ABOVE, GateResult, ProgramScore, Row
from edgeopt.types import Role

_TOLERANCE = 1e-9  # 0.98 - 0.96 is a little more than 0.02 in binary


def judge(
    gates: Gates, rows: Sequence[Row], programs: Sequence[ProgramScore] = (), *, smoke: bool = False
) -> tuple[GateResult, ...]:
    """Each gate of the recipe on each file it is about; none in a smoke run, whose figures mean nothing.

    `accuracy`, `accuracy_drop`, `size_ratio` and `latency_ratio` are about the files that ship: the optimized ones, or
    the float ones where the recipe does not optimize. `agreement` is about every file. A figure that could not be had
    misses its gate.
    """
    if smoke:
        return ()
    optimized = [row for row in rows if row.role is Role.OPTIMIZED]
    shipped = optimized or list(rows)
    questions: tuple[tuple[str, float | None, Sequence[Row], Callable[[Row], float | None]], ...] = (
        ("accuracy", gates.accuracy, shipped, lambda row: row.test_accuracy),
        ("accuracy_drop", gates.accuracy_drop, shipped, lambda row: _drop(row, rows, programs)),
        ("agreement", gates.agreement, rows, lambda row: row.agreement),
        ("size_ratio", gates.size_ratio, shipped, lambda row: _size_ratio(row, rows)),
        ("latency_ratio", gates.latency_ratio, shipped, lambda row: _latency_ratio(row, rows)),
    )
    results: list[GateResult] = []
    for name, limit, asked, figure_of in questions:
        if limit is not None:
            answers = [_judged(name, limit, figure_of(row), row) for row in asked]
            results += answers or [GateResult(name, limit, None, passed=False, reason="no file was made")]
    return tuple(results)


def _judged(name: str, limit: float, figure: float | None, row: Row) -> GateResult:
    if figure is None:
        reason = "the file failed" if row.error else row.not_run or "there is no figure to compare"
        return GateResult(name, limit, None, passed=False, file=row.file, reason=reason)
    passed = figure <= limit + _TOLERANCE if name in GATES_FROM_ABOVE else figure >= limit - _TOLERANCE
    return GateResult(name, limit, figure, passed, row.file)


def _drop(row: Row, rows: Sequence[Row], programs: Sequence[ProgramScore]) -> float | None:
    """How much lower the file scores than the float program in PyTorch, or than the float file
    where that is unknown.
    """
    program = next((score for score in programs if score.role is Role.BASELINE), None)
    baseline = baseline_of(row, rows)
    before = program.test_accuracy if program else baseline.test_accuracy if baseline else None
    return None if before is None or row.test_accuracy is None else before - row.test_accuracy


def _size_ratio(row: Row, rows: Sequence[Row]) -> float | None:
    pair = compare(row, rows)
    return pair.size_factor if pair else None


def _latency_ratio(row: Row, rows: Sequence[Row]) -> float | None:
    pair = compare(row, rows)
    return 1 / pair.latency_factor if pair and pair.latency_factor else None
