"""What the files of a trial reach, and how far that is from the goal. Pure functions of reports."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from edgeopt.measure.latency import Latency
from edgeopt.measure.on_device import FileThere
from edgeopt.recipe.tune import Goal
from edgeopt.report.compare import baseline_of
from edgeopt.report.devices import there
from edgeopt.report.figures import size
from edgeopt.report.schema import Report, Row
from edgeopt.tasks.scores import DROP, Score, ScoreKind
from edgeopt.types import Role

N = TypeVar("N", int, float)

COSTS = ("bytes", "latency_ms", "memory_bytes", "energy_mj")
"""What can be least besides drops of scores; all of it is known before anything is trained."""

BOUNDS = ("bytes", "memory_bytes", "latency_ms", "latency_ratio", "size_ratio", "energy_mj")
"""What a goal can bound besides scores and agreement; shapes tell all of it."""

UNITS = {"latency_ms": "ms", "energy_mj": "mJ"}
"""Of those that are not bytes."""

_MEASURED = frozenset({"latency_ms", "latency_ratio", "energy_mj"})
"""Those of them that another measurement would give a little otherwise."""

UNKNOWN = 1.0
"""How far a figure counts to be from its limit that nobody could measure."""

_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Figures:
    """The worst of each figure over the files that ship, on this machine or on the goal's device; None where a file has
    none. `scores` are those on validation images, and `failed` says why there are no figures at all.
    """

    bytes: int | None = None
    latency_ms: float | None = None
    memory_bytes: int | None = None
    energy_mj: float | None = None
    agreement: float | None = None
    size_ratio: float | None = None
    latency_ratio: float | None = None
    macs: int | None = None
    delegated_share: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    failed: str | None = None

    def of(self, name: str) -> float | None:
        """A figure by the name that goals call it."""
        return getattr(self, name) if name in _NAMED else self.scores.get(name)


_NAMED = frozenset({*COSTS, "agreement", "size_ratio", "latency_ratio", "macs"})


@dataclass(frozen=True)
class Reference:
    """The recipe as it stands: the scores of its float program, and its float files' sizes and latencies by export."""

    scores: Mapping[str, float]
    bytes: Mapping[str, int]
    latency_ms: Mapping[str, float]


@dataclass(frozen=True)
class Missed:
    """A bound of the goal that a trial does not keep; `excess` says by how much of the limit, more than 0."""

    name: str
    limit: float
    figure: float | None
    excess: float

    @property
    def told(self) -> str:
        """The bound and the figure in words."""
        figure = "not known" if self.figure is None else _told(self.name, self.figure)
        return f"{self.name} is {figure}, and the goal {_told(self.name, self.limit)}"


def _told(name: str, value: float) -> str:
    if name in ("bytes", "memory_bytes"):
        return size(value)
    return f"{value:.4g} {UNITS[name]}" if name in UNITS else f"{value:.4g}"


def reference_of(report: Report, device: str | None) -> Reference:
    """What later trials are held against."""
    program = next(each for each in report.programs if each.role is Role.BASELINE)
    rows = [row for row in report.rows if row.role is Role.BASELINE]
    latencies = {row.export: latency for row in rows if (latency := _latency(report, row, device))}
    return Reference(
        scores={score.kind.name: score.value for score in program.scores},
        bytes={row.export: row.size_bytes for row in rows if row.size_bytes is not None},
        latency_ms={name: latency.p50 for name, latency in latencies.items()},
    )


def figures_of(report: Report, device: str | None, reference: Reference | None = None) -> Figures:
    """What the files that ship reach: the optimized ones, or the float ones of a recipe that does not optimize."""
    shipped = [row for row in report.rows if row.role is Role.OPTIMIZED] or list(report.rows)
    if failed := next((row.error or row.not_run for row in shipped if row.error or row.not_run), None):
        return Figures(failed=failed)
    latencies = [_latency(report, row, device) for row in shipped]
    program = next((each for each in reversed(report.programs)), None)
    return Figures(
        bytes=_worst([row.size_bytes for row in shipped]),
        latency_ms=_worst([latency.p50 if latency else None for latency in latencies]),
        memory_bytes=_worst([_memory(report, row, device) for row in shipped]),
        energy_mj=_worst([_energy_mj(report, row, device) for row in shipped]),
        agreement=_least([row.agreement for row in shipped]),
        size_ratio=_least([_smaller(row, report, reference) for row in shipped]),
        latency_ratio=_worst(
            [_slower(row, latency, report, reference) for row, latency in zip(shipped, latencies, strict=True)]
        ),
        macs=program.macs if program else None,
        delegated_share=_least([row.delegated_share for row in shipped]),
        scores=_scores(report, shipped, device),
    )


def missed(goal: Goal, figures: Figures, reference: Reference, kinds: Sequence[ScoreKind]) -> tuple[Missed, ...]:
    """The bounds that are not kept, in the order in which the goal names them; an unknown figure keeps none."""
    return (*_costs_missed(goal, figures), *_scores_missed(goal, figures, reference, kinds))


def out_of_reach(goal: Goal, figures: Figures, slack: float) -> tuple[Missed, ...]:
    """The bounds that files of these shapes cannot keep, whatever their weights learn: sizes and memory by more than
    `slack` of the limit, and latency and energy, which are measurements, by more than three times that.
    """
    return tuple(
        each
        for each in _costs_missed(goal, figures)
        if each.figure is not None and each.excess > (3 * slack if each.name in _MEASURED else slack)
    )


def objective(name: str, figures: Figures, reference: Reference, kinds: Sequence[ScoreKind]) -> float | None:
    """What is to be least, as a number; None where it is not known."""
    if name in COSTS:
        return figures.of(name)
    return _drop(name.removesuffix(DROP), figures, reference, kinds)


def needs_training(goal: Goal, minimize: Sequence[str]) -> bool:
    """Whether some of what is asked for depends on what weights learn."""
    return bool(goal.scores) or goal.agreement is not None or any(name not in COSTS for name in minimize)


def _costs_missed(goal: Goal, figures: Figures) -> Iterator[Missed]:
    """The bounds on what files cost."""
    for name in BOUNDS:
        if (limit := getattr(goal, name)) is not None:
            yield from _bound(name, limit, figures.of(name), above=name != "size_ratio", scale=limit)


def _scores_missed(goal: Goal, figures: Figures, reference: Reference, kinds: Sequence[ScoreKind]) -> Iterator[Missed]:
    """The bounds on how well files answer."""
    if goal.agreement is not None:
        yield from _bound("agreement", goal.agreement, figures.agreement, above=False, scale=1.0)
    larger = {kind.name: kind.larger_is_better for kind in kinds}
    for name, limit in goal.scores.items():
        if name in larger:
            yield from _bound(name, limit, figures.scores.get(name), above=not larger[name], scale=1.0)
        else:
            drop = _drop(name.removesuffix(DROP), figures, reference, kinds)
            yield from _bound(name, limit, drop, above=True, scale=1.0)


def _bound(name: str, limit: float, figure: float | None, *, above: bool, scale: float) -> Iterator[Missed]:
    """Whether a figure, which may be at most or at least `limit`, is beyond it; `scale` is what counts as 1."""
    if figure is None or math.isnan(figure):
        yield Missed(name, limit, None, UNKNOWN)
    elif (over := figure - limit if above else limit - figure) > _TOLERANCE:
        yield Missed(name, limit, figure, over / scale)


def _drop(score: str, figures: Figures, reference: Reference, kinds: Sequence[ScoreKind]) -> float | None:
    """How much worse a score is than that of the reference's float program."""
    kind = next((each for each in kinds if each.name == score), None)
    before, after = reference.scores.get(score), figures.scores.get(score)
    if kind is None or before is None or after is None:
        return None
    return before - after if kind.larger_is_better else after - before


def _there(report: Report, row: Row, device: str | None) -> FileThere | None:
    found = next((each for each in report.devices if each.name == device), None)
    return there(found, row) if found else None


def _latency(report: Report, row: Row, device: str | None) -> Latency | None:
    if device is None:
        return row.latency_ms
    found = _there(report, row, device)
    return found.latency_ms if found else None


def _memory(report: Report, row: Row, device: str | None) -> int | None:
    if device is None:
        return row.peak_memory_bytes
    found = _there(report, row, device)
    return found.peak_memory_bytes if found else None


def _energy_mj(report: Report, row: Row, device: str | None) -> float | None:
    found = row if device is None else _there(report, row, device)
    return found.energy.mj_per_image if found and found.energy else None


def _scores(report: Report, shipped: Sequence[Row], device: str | None) -> Mapping[str, float]:
    """The worst of each score over the files; none where a file has not answered."""
    found: dict[str, Score] = {}
    for row in shipped:
        there = _there(report, row, device) if device is not None else None
        scores = row.scores if device is None else there.answers.scores if there and there.answers else ()
        if not scores:
            return {}
        for score in scores:
            worst = found.setdefault(score.kind.name, score)
            if score.kind.rank(score.value) < score.kind.rank(worst.value):
                found[score.kind.name] = score
    return {name: score.value for name, score in found.items()}


def _smaller(row: Row, report: Report, reference: Reference | None) -> float | None:
    own = baseline_of(row, report.rows)
    before = reference.bytes.get(row.export) if reference else own.size_bytes if own else None
    return before / row.size_bytes if before and row.size_bytes else None


def _slower(row: Row, latency: Latency | None, report: Report, reference: Reference | None) -> float | None:
    own = baseline_of(row, report.rows)
    before = (
        reference.latency_ms.get(row.export) if reference else own.latency_ms.p50 if own and own.latency_ms else None
    )
    return latency.p50 / before if before and latency else None


def _worst(values: Sequence[N | None]) -> N | None:
    known = [each for each in values if each is not None]
    return max(known) if len(known) == len(values) and known else None


def _least(values: Sequence[N | None]) -> N | None:
    known = [each for each in values if each is not None]
    return min(known) if len(known) == len(values) and known else None
