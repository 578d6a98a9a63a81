"""What `--gate` takes for a regression, and what it allows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from edgeopt.comparison.schema import Change, FileChange, Judged, LatencyChange, Limits, Unpaired
from edgeopt.errors import Problem, UserError, did_you_mean

_NAMES = ("accuracy", "bytes", "latency")
_HOW = "write it as in --allow accuracy=0.005,bytes=1.05,latency=1.10"
_TOLERANCE = 1e-9  # 0.98 - 0.96 is a little more than 0.02 in binary


def read_limits(allowed: Iterable[str]) -> Limits:
    """What `--allow NAME=LIMIT,...` says, defaults for the rest.

    Raises `UserError` with everything that is wrong with it.
    """
    limits, problems = Limits(), []
    for text in (part.strip() for each in allowed for part in each.split(",") if part.strip()):
        name, _, number = (part.strip() for part in text.partition("="))
        problem = _problem(text, name, number, limits)
        if problem:
            problems.append(problem)
        else:
            limits = replace(limits, **{name: float(number)}, asked=(*limits.asked, name))
    if problems:
        raise UserError(*problems)
    return limits


def _problem(text: str, name: str, number: str, limits: Limits) -> Problem | None:
    if name not in _NAMES:
        return Problem(f"--allow {text}: there is no limit {name!r}", did_you_mean(name, _NAMES))
    if name in limits.asked:
        return Problem(f"--allow {text}: {name} is allowed twice", "name each limit once")
    try:
        limit = float(number)
    except ValueError:
        return Problem(f"--allow {text}: {number!r} is not a number", _HOW)
    if name == "accuracy" and not 0 <= limit <= 1:
        return Problem(f"--allow {text}: a drop of accuracy is a share, 0 to 1", "0.005 is half a point")
    if name != "accuracy" and not 0 < limit < float("inf"):
        return Problem(f"--allow {text}: the limit is a ratio above 0", "1.05 allows five per cent more")
    return None


def judge(
    files: Sequence[FileChange], unpaired: Sequence[Unpaired], first_run: str, limits: Limits
) -> tuple[Judged, ...]:
    """Every file of the first run in every figure, and each of its files that has no partner; what is missed first."""
    judged = [*_files(files, limits), *_missing(unpaired, first_run)]
    return tuple(sorted(judged, key=lambda each: each.passed is not False))


def _files(files: Sequence[FileChange], limits: Limits) -> Iterator[Judged]:
    for change in files:
        yield _accuracy(change, limits.accuracy)
        yield _bytes(change, limits.bytes)
        asked = "latency" in limits.asked
        yield _latency(change.file_after, change.latency, change.no_latency, limits.latency, asked=asked)
        for there in change.devices:
            name = f"{change.file_after} on {there.device}"
            yield _latency(name, there.latency, there.no_latency, limits.latency, asked=asked)


def _accuracy(change: FileChange, limit: float) -> Judged:
    """Missed by a drop of more than the limit that is no chance, and where nobody can tell; not judged where there was
    nothing to lose.
    """
    found = change.accuracy
    if found is None:
        passed = None if change.accuracy_before is None else False
        return Judged(name="accuracy", file=change.file_after, passed=passed, limit=limit, reason=change.no_accuracy)
    drop = found.before - found.after
    is_regression = found.verdict is Change.WORSE and drop > limit + _TOLERANCE
    return Judged(name="accuracy", file=change.file_after, passed=not is_regression, limit=limit, figure=drop)


def _bytes(change: FileChange, limit: float) -> Judged:
    if change.size is None:
        reason = "the size of one of the files is not known"
        return Judged(name="bytes", file=change.file_after, passed=False, limit=limit, reason=reason)
    passed = change.size.ratio <= limit + _TOLERANCE
    return Judged(name="bytes", file=change.file_after, passed=passed, limit=limit, figure=change.size.ratio)


def _latency(file: str, found: LatencyChange | None, why_not: str | None, limit: float, *, asked: bool) -> Judged:
    """Missed by a ratio above the limit that is no noise. Where there is no ratio, missed only if somebody asked."""
    if found is None or found.ratio is None:
        reason = (found.why_not if found else why_not) or "there is no figure to compare"
        return Judged(name="latency", file=file, passed=False if asked else None, limit=limit, reason=reason)
    is_regression = found.verdict is Change.WORSE and found.ratio > limit + _TOLERANCE
    return Judged(name="latency", file=file, passed=not is_regression, limit=limit, figure=found.ratio)


def _missing(unpaired: Sequence[Unpaired], first_run: str) -> Iterator[Judged]:
    for each in unpaired:
        if each.run == first_run and each.made:
            yield Judged(name="file", file=each.file, passed=False, reason=each.reason)
