"""Whether the recipe's gates were reached. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from edgeopt.measure.on_device import FileThere
from edgeopt.recipe.gates import DeviceGates, Gates
from edgeopt.report.answers import guess_in_row
from edgeopt.report.compare import baseline_of, compare
from edgeopt.report.devices import latencies_there, there
from edgeopt.report.latencies import LatencyPair
from edgeopt.report.schema import GateResult, MeasuredDevice, ProgramScore, Row, is_from_above
from edgeopt.report.training import Training
from edgeopt.tasks.guessing import GuessKind
from edgeopt.tasks.scores import ACCURACY, DROP, ScoreKind
from edgeopt.types import Role

NO_TRAINING = Training()
_RECALL = "recall."  # before the name of a class
_TOLERANCE = 1e-9  # 0.98 - 0.96 is a little more than 0.02 in binary


def judge(
    gates: Gates,
    rows: Sequence[Row],
    programs: Sequence[ProgramScore] = (),
    training: Training = NO_TRAINING,
    devices: Sequence[MeasuredDevice] = (),
) -> tuple[GateResult, ...]:
    """Each gate of the recipe on each file it is about.

    Those on scores, what is lost of them and `recall`, `size_ratio`, `latency_ratio` and `energy_mj` are about the
    files that ship: the optimized ones, or the float ones where the recipe does not optimize. `agreement` is about
    every file. A figure that could not be had misses its gate, and a file that gives one class for every image misses
    all of them: its figures say nothing. Those on `devices` are judged on these, `ram_bytes` and `flash_bytes` on the
    files of exporters that tell them.
    """
    optimized = [row for row in rows if row.role is Role.OPTIMIZED]
    shipped = optimized or list(rows)
    questions: tuple[tuple[str, float | None, Sequence[Row], Callable[[Row], float | None]], ...] = (
        *_score_questions(gates, shipped, lambda row, name: _drop(row, name, rows, programs)),
        *((f"{_RECALL}{name}", limit, shipped, partial(_recall, name)) for name, limit in gates.recall.items()),
        ("agreement", gates.agreement, rows, lambda row: row.agreement),
        ("size_ratio", gates.size_ratio, shipped, lambda row: _size_ratio(row, rows)),
        ("latency_ratio", gates.latency_ratio, shipped, lambda row: _latency_ratio(row, rows)),
        ("energy_mj", gates.energy_mj, shipped, lambda row: row.energy.mj_per_image if row.energy else None),
    )
    results: list[GateResult] = [*_footprints(gates, shipped)]
    for name, limit, asked, figure_of in questions:
        if limit is not None:
            answers = [_judged(name, limit, figure_of(row), row) for row in asked]
            if name.endswith(DROP):
                answers = [
                    _explained(result, row, programs, training) for result, row in zip(answers, asked, strict=True)
                ]
            results += answers or [GateResult(name, limit, None, passed=False, reason="no file was made")]
    for device in devices:
        if (wanted := gates.devices.get(device.name)) is not None:
            results += _judged_there(wanted, device, shipped, rows)
    return tuple(results)


def _footprints(gates: Gates, shipped: Sequence[Row]) -> Iterator[GateResult]:
    """The gates on RAM and flash, whose messages say by how much a file is over them and which layer takes most."""
    for name, limit in (("ram_bytes", gates.ram_bytes), ("flash_bytes", gates.flash_bytes)):
        if limit is None:
            continue
        asked = [(row, row.footprint) for row in shipped if row.footprint is not None]
        for row, found in asked:
            is_ram = name == "ram_bytes"
            figure, (layer, most) = (
                (found.ram_bytes, found.most_ram) if is_ram else (found.flash_bytes, found.most_flash)
            )
            result = GateResult(name, limit, figure, passed=figure <= limit, file=row.file)
            note = f"over by {figure - limit:,} bytes; {layer} takes the most, {most:,} bytes"
            yield result if result.passed else replace(result, note=note)
        if not asked:
            yield GateResult(name, limit, None, passed=False, reason="no file tells what it takes")


def _judged_there(
    gates: DeviceGates, device: MeasuredDevice, shipped: Sequence[Row], rows: Sequence[Row]
) -> Iterator[GateResult]:
    """Each gate on one device on each file that it is about."""

    def of(figure: Callable[[FileThere], float | None]) -> Callable[[Row], float | None]:
        return lambda row: figure(found) if (found := there(device, row)) else None

    questions: tuple[tuple[str, float | None, Sequence[Row], Callable[[Row], float | None]], ...] = (
        *((name, limit, shipped, of(partial(_score_there, name))) for name, limit in _limits(gates)),
        ("agreement", gates.agreement, rows, of(lambda file: file.answers.agreement if file.answers else None)),
        ("latency_ratio", gates.latency_ratio, shipped, lambda row: _ratio(latencies_there(device, row, rows))),
        ("p50_ms", gates.p50_ms, shipped, of(lambda file: file.latency_ms.p50 if file.latency_ms else None)),
        ("energy_mj", gates.energy_mj, shipped, of(lambda file: file.energy.mj_per_image if file.energy else None)),
    )
    for name, limit, asked, figure_of in questions:
        if limit is None:
            continue
        for row in asked:
            result = replace(_judged(name, limit, figure_of(row), row), device=device.name)
            found = there(device, row)
            why = device.error or (found.error if found else None)
            if name == "energy_mj" and found:
                why = why or found.energy_problem
            yield replace(result, reason=why) if result.figure is None and why else result


def _limits(gates: Gates | DeviceGates) -> Iterator[tuple[str, float | None]]:
    """The gates on scores: that on accuracy, what may be lost of it, and those that only this task has."""
    yield ACCURACY.name, gates.accuracy
    if isinstance(gates, Gates):
        yield f"{ACCURACY.name}{DROP}", gates.accuracy_drop
    yield from gates.scores.items()


def _score_questions(
    gates: Gates, shipped: Sequence[Row], drop: Callable[[Row, str], float | None]
) -> Iterator[tuple[str, float | None, Sequence[Row], Callable[[Row], float | None]]]:
    """Each gate on a score of the shipped files; `drop` says how much worse a file's score of that name became."""
    for name, limit in _limits(gates):
        figure = partial(_drop_of, drop, name) if name.endswith(DROP) else partial(_score_of, name)
        yield name, limit, shipped, figure


def _drop_of(drop: Callable[[Row, str], float | None], name: str, row: Row) -> float | None:
    return drop(row, name.removesuffix(DROP))


def _score_of(name: str, row: Row) -> float | None:
    score = row.score_named(name)
    return score.value if score else None


def _score_there(name: str, file: FileThere) -> float | None:
    scores = file.answers.scores if file.answers else ()
    return next((score.value for score in scores if score.kind.name == name), None)


def _judged(name: str, limit: float, figure: float | None, row: Row) -> GateResult:
    kind = next((score.kind for score in row.scores if score.kind.name == name.removesuffix(DROP)), None)
    return replace(_judged_as(name, limit, figure, row, kind), kind=kind)


def _judged_as(name: str, limit: float, figure: float | None, row: Row, kind: ScoreKind | None) -> GateResult:
    if figure is None:
        reason = "the file failed" if row.error else row.not_run or "there is no figure to compare"
        if name.startswith(_RECALL) and row.per_class:
            reason = f"the test split has no image of class {name.removeprefix(_RECALL)!r}"
        if name == "energy_mj" and row.energy_problem:
            reason = row.energy_problem
        return GateResult(name, limit, None, passed=False, file=row.file, reason=reason)
    guess = guess_in_row(row)
    if guess is not None and guess.kind is GuessKind.ONE_CLASS:
        reason = f"it {guess.told('test images')}"
        return GateResult(name, limit, figure, passed=False, file=row.file, reason=reason)
    passed = figure <= limit + _TOLERANCE if is_from_above(name, kind) else figure >= limit - _TOLERANCE
    return GateResult(name, limit, figure, passed, row.file)


def _recall(name: str, row: Row) -> float | None:
    """The share of a class's test images that a file tells; None for a class without any."""
    return next((score.recall for score in row.per_class if score.name == name), None)


def _drop(row: Row, name: str, rows: Sequence[Row], programs: Sequence[ProgramScore]) -> float | None:
    """How much worse the file's score `name` is than the float program's, or than the float file's where that is
    unknown.
    """
    reference = _float_program(programs) or baseline_of(row, rows)
    before, after = reference.score_named(name) if reference else None, row.score_named(name)
    if before is None or after is None:
        return None
    return before.value - after.value if after.kind.larger_is_better else after.value - before.value


def _explained(result: GateResult, row: Row, programs: Sequence[ProgramScore], training: Training) -> GateResult:
    """A judged drop of accuracy with what it is counted from, the images behind it, and unequal training."""
    if result.figure is None:
        return result
    if _float_program(programs):
        against, pair = "the float program, before any export", row.against_float_program
    else:
        against, pair = "the float file of the same export", row.against_float_file
    note = training.note if row.role is Role.OPTIMIZED else None
    return replace(result, against=against, paired=pair, note=note)


def _float_program(programs: Sequence[ProgramScore]) -> ProgramScore | None:
    return next((score for score in programs if score.role is Role.BASELINE), None)


def _size_ratio(row: Row, rows: Sequence[Row]) -> float | None:
    pair = compare(row, rows)
    return pair.size_factor if pair else None


def _latency_ratio(row: Row, rows: Sequence[Row]) -> float | None:
    pair = compare(row, rows)
    return _ratio(pair.latencies) if pair else None


def _ratio(pair: LatencyPair | None) -> float | None:
    return 1 / pair.factor if pair and pair.factor else None
