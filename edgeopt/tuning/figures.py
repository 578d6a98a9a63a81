"""Values and figures of trials as people read them."""

from __future__ import annotations

from edgeopt.report import figures
from edgeopt.tasks.scores import DROP, ScoreKind
from edgeopt.tuning.goals import UNITS
from edgeopt.tuning.plan import Study
from edgeopt.tuning.space import Values
from edgeopt.tuning.trials import Trial


def values_told(values: Values) -> str:
    """The values of a trial, by the last part of each parameter's name."""
    return ", ".join(f"{_short(name)} {_value(value)}" for name, value in values.items())


def objective_told(name: str, value: float | None, kinds: tuple[ScoreKind, ...]) -> str:
    """What is to be least, with its unit."""
    if value is None:
        return "not known"
    if name in ("bytes", "memory_bytes"):
        return figures.size(round(value))
    if name in UNITS:
        return f"{value:.3g} {UNITS[name]}"
    kind = next((each for each in kinds if f"{each.name}{DROP}" == name), None)
    return f"{100 * value:.1f} points" if kind is None or kind.is_share else f"{value:.3g}{kind.unit}"


def reached_told(trial: Trial, study: Study) -> str:
    """The scores, size, latency and energy of a trial's files, the worst of each."""
    scores = [
        f"{kind.name} {kind.text(trial.figures.scores[kind.name])}"
        for kind in study.kinds
        if kind.name in trial.figures.scores
    ]
    size = [figures.size(trial.figures.bytes)] if trial.figures.bytes is not None else []
    latency = [f"{trial.figures.latency_ms:.3g} ms"] if trial.figures.latency_ms is not None else []
    energy = [figures.millijoules(trial.figures.energy_mj)] if trial.figures.energy_mj is not None else []
    return ", ".join([*scores, *size, *latency, *energy])


def _short(name: str) -> str:
    return name.rpartition(".")[2] if not name.rsplit(".", maxsplit=1)[-1].isdecimal() else name


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
