"""What `--gate` takes for a regression, and what it allows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from edgeopt.comparison.runs import ReadRun
from edgeopt.comparison.schema import Change, FileChange, Judged, LatencyChange, Limits, Unpaired
from edgeopt.errors import Problem, UserError, did_you_mean
from edgeopt.plugins.declarations import TaskPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.tasks.scores import ACCURACY, ScoreKind

_RATIOS = ("bytes", "latency")
_TOLERANCE = 1e-9  # 0.98 - 0.96 is a little more than 0.02 in binary


def read_limits(allowed: Iterable[str], score: ScoreKind = ACCURACY) -> Limits:
    """What `--allow NAME=LIMIT,...` says, defaults for the rest; `score` is the runs' primary one, whose drop is
    allowed by its name.

    Raises `UserError` with everything that is wrong with it.
    """
    limits, problems = Limits(), []
    for text in (part.strip() for each in allowed for part in each.split(",") if part.strip()):
        name, _, number = (part.strip() for part in text.partition("="))
        problem = _problem(text, name, number, limits, score)
        if problem:
            problems.append(problem)
        else:
            field = name if name in _RATIOS else "accuracy"
            limits = replace(limits, **{field: float(number)}, asked=(*limits.asked, name))
    if problems:
        raise UserError(*problems)
    return limits


def primary_score(runs: Sequence[ReadRun], allowed: Iterable[str], plugin_files: Sequence[Path]) -> ScoreKind:
    """The primary score of the files of runs; where no run could be read, that of a task here which `--allow` names."""
    told = next((row.score.kind for run in runs for row in run.report.rows if row.score), None)
    if told is not None or runs:
        return told or ACCURACY
    names = {part.partition("=")[0].strip() for each in allowed for part in each.split(",")}
    tasks = (entry.plugin for entry in load_registry(plugin_files) if isinstance(entry.plugin, TaskPlugin))
    kinds = (plugin.made(plugin.options()).score_kinds[0] for plugin in tasks)
    return next((kind for kind in kinds if kind.name in names), ACCURACY)


def _problem(text: str, name: str, number: str, limits: Limits, score: ScoreKind) -> Problem | None:
    names = (score.name, *_RATIOS)
    if name not in names:
        hint = did_you_mean(name, names) or f"there are {', '.join(names)}"
        return Problem(f"--allow {text}: there is no limit {name!r}", hint)
    if name in limits.asked:
        return Problem(f"--allow {text}: {name} is allowed twice", "name each limit once")
    try:
        limit = float(number)
    except ValueError:
        how = f"write it as in --allow {score.name}=0.005,bytes=1.05,latency=1.10"
        return Problem(f"--allow {text}: {number!r} is not a number", how)
    if name == score.name and score.is_share and not 0 <= limit <= 1:
        return Problem(f"--allow {text}: a drop of {score.called} is a share, 0 to 1", "0.005 is half a point")
    if name == score.name and not 0 <= limit < float("inf"):
        return Problem(f"--allow {text}: it says how much worse {score.called} may become", "give a number from 0 on")
    if name != score.name and not 0 < limit < float("inf"):
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
    found, kind = change.accuracy, change.kind
    judged = Judged(name=kind.name, file=change.file_after, passed=None, limit=limit, kind=kind)
    if found is None:
        return replace(judged, passed=None if change.score_before is None else False, reason=change.no_accuracy)
    drop = kind.rank(found.before) - kind.rank(found.after)
    is_regression = found.verdict is Change.WORSE and drop > limit + _TOLERANCE
    return replace(judged, passed=not is_regression, figure=drop)


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
