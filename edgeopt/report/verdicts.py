"""What the figures mean, in plain sentences. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgeopt.report import figures
from edgeopt.report.compare import Comparison, compare, noise, title
from edgeopt.report.schema import Row
from edgeopt.types import PassRecord, Role

SMOKE = (
    "This was a smoke run on a few batches and images: it shows that the recipe works, "
    "its figures mean nothing, and gates were not judged."
)

CHANGE_COUNTS = ("_quantized", "_frozen", "_removed", "_pruned", "_replaced", "_fused")
"""Facts of a pass whose names end like this count what it changed."""

_LOW_AGREEMENT = 0.98
_SAME_SIZE = 0.01


def verdicts(rows: Sequence[Row], passes: Sequence[PassRecord] = (), *, smoke: bool = False) -> tuple[str, ...]:
    """What a reader should know first: the optimized files against the float ones, and every reason for doubt."""
    return tuple(_sentences(rows, passes, smoke))


def _sentences(rows: Sequence[Row], passes: Sequence[PassRecord], smoke: bool) -> Iterator[str]:
    if smoke:
        yield SMOKE
    for row in rows:
        if row.error:
            yield f"{title(row)} ({row.role}) failed: {_first_line(row.error)}"
    if rows and all(row.role is Role.BASELINE for row in rows):
        yield "No pass of this recipe optimizes: all files hold the float model."
    for row in rows:
        if row.role is Role.OPTIMIZED and not row.error:
            yield from _against_baseline(row, rows)
    for row in rows:
        yield from _doubts(row)
        if not smoke:
            yield from _doubt_of_answers(row)
    if not smoke:
        yield from _doubt_of_latencies(rows)
    for record in passes:
        yield from _about_pass(record)


def _against_baseline(row: Row, rows: Sequence[Row]) -> Iterator[str]:
    pair = compare(row, rows)
    if pair is None:
        yield f"{title(row)}: there is no float file of this export, so nothing is compared."
    elif pair.same_bytes:
        yield f"{title(row)}: the file is the float file, byte for byte: the passes changed nothing."
    else:
        yield f"{title(row)} is {_size(pair)}{_latency(pair)}."
        if pair.accuracy_change is not None:
            yield _accuracy(pair)
        if _gains_nothing(pair):
            yield f"{title(row)}: optimizing brought nothing that can be measured, neither bytes nor milliseconds."


def _size(pair: Comparison) -> str:
    ratio = pair.size_factor
    if ratio is None:
        return "not compared in size"
    span = f"({figures.size(pair.baseline.size_bytes)} to {figures.size(pair.optimized.size_bytes)})"
    if abs(ratio - 1) < _SAME_SIZE:
        return f"no smaller than {pair.baseline.precision} {span}"
    if ratio < 1:
        return f"{figures.times(1 / ratio)} larger than {pair.baseline.precision} {span}"
    return f"{figures.times(ratio)} smaller than {pair.baseline.precision} {span}"


def _latency(pair: Comparison) -> str:
    if pair.latencies is None:
        measured = pair.baseline.latency_ms and pair.optimized.latency_ms
        reason = "was measured differently" if measured else "was not measured for both"
        return f"; latency {reason}, so it is not compared"
    before, after = pair.latencies
    span = f"(p50 {figures.milliseconds(before.p50)} to {figures.milliseconds(after.p50)})"
    ratio = pair.latency_factor
    if ratio is None or pair.latency_within_noise:
        return f"; the difference in latency is within the noise {span}"
    if ratio < 1:
        return f" but {figures.times(1 / ratio)} slower {span}"
    return f" and {figures.times(ratio)} faster {span}"


def _accuracy(pair: Comparison) -> str:
    before, after = pair.baseline.test_accuracy, pair.optimized.test_accuracy
    change = pair.accuracy_change or 0.0
    start = f"{title(pair.optimized)}: test accuracy"
    if before == after:
        return f"{start} stayed at {figures.percent(after)}."
    went = f"{start} went from {figures.percent(before)} to {figures.percent(after)} ({figures.points(change)})"
    if pair.intervals_overlap:
        return f"{went}; the 95 % intervals overlap, so with this many test images the difference may be chance."
    return f"{went}; the 95 % intervals do not overlap, so this is a {'gain' if change > 0 else 'loss'}, not chance."


def _gains_nothing(pair: Comparison) -> bool:
    ratio, faster = pair.size_factor, pair.latency_factor
    no_smaller = ratio is not None and ratio < 1 + _SAME_SIZE
    no_faster = faster is not None and (faster <= 1 or pair.latency_within_noise)
    return no_smaller and no_faster


def _doubts(row: Row) -> Iterator[str]:
    name = f"{title(row)} ({row.role})"
    if row.not_run:
        yield f"{name}: the file was made and not opened: {row.not_run}."
    if row.stand_in:
        yield (
            f"{name}: this machine has no {row.runtime}; the file was verified in {row.stand_in} instead, "
            f"and its latency is not known."
        )
    if row.outside:
        share = (
            "" if row.delegated_share is None else f"; {figures.percent(row.delegated_share)} of the nodes are inside"
        )
        yield f"{name}: {_listed(row.outside)} stayed outside the delegate{share}."
    for warning in row.warnings:
        yield f"{name}: {warning}"


def _doubt_of_answers(row: Row) -> Iterator[str]:
    name = f"{title(row)} ({row.role})"
    if row.agreement is not None and row.agreement < _LOW_AGREEMENT:
        cause = f"that is what {row.precision} costs" if row.converted else "the export changed the model"
        yield (
            f"{name}: the file answers differently from its own program for {figures.percent(1 - row.agreement)} "
            f"of the test images: {cause}."
        )


def _doubt_of_latencies(rows: Sequence[Row]) -> Iterator[str]:
    noisy = [
        f"{title(row)} ({row.role}; {'; '.join(found)})"
        for row in rows
        if row.latency_ms and (found := noise(row.latency_ms))
    ]
    if noisy:
        latencies = [row.latency_ms for row in rows if row.latency_ms]
        apart = " With measure.threads = 1 they do not depend on how far apart the machine's cores are."
        yield (
            f"Latency is noisy in {len(noisy)} of {len(latencies)} files: {', '.join(noisy)}. "
            f"How many times faster is judged turn by turn, side by side; for milliseconds, measure again on a quiet "
            f"machine, "
            f"with --measure-again.{apart if any(latency.threads > 1 for latency in latencies) else ''}"
        )


def _about_pass(record: PassRecord) -> Iterator[str]:
    counts = [
        value
        for name, value in record.facts.items()
        if name.endswith(CHANGE_COUNTS) and isinstance(value, int) and not isinstance(value, bool)
    ]
    if counts and not any(counts):
        yield f"Pass {record.name} changed nothing: all that it counts is 0."
    for warning in record.warnings:
        yield f"Pass {record.name}: {warning}"


def _listed(operators: Sequence[str], limit: int = 4) -> str:
    """Operators with their counts, the most frequent first."""
    counts = {name: operators.count(name) for name in dict.fromkeys(operators)}
    ordered = sorted(counts, key=lambda name: -counts[name])
    shown = [name if counts[name] == 1 else f"{name} ({counts[name]} times)" for name in ordered[:limit]]
    more = len(ordered) - limit
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "no reason was given")
