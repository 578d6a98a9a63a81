"""Plots of a study: trials by what they cost and score, over time, by parameter, and what matters."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from html import escape

from edgeopt.report.drawing import FLOAT, INK, OPTIMIZED, QUIET, Plot, as_svg, empty_axes, styled
from edgeopt.tuning.figures import objective_told, reached_told, values_told
from edgeopt.tuning.result import TuneResult
from edgeopt.tuning.space import Choices, Parameter
from edgeopt.tuning.trials import Trial
from edgeopt.tuning.winner import front, so_far

_SIZE = (6.2, 3.4)
_LOGARITHMIC_FROM = 20.0  # times that the largest figure is of the least
_FAINT = 0.35


def plots(result: TuneResult, trials: Sequence[Trial]) -> tuple[Plot, ...]:
    """Those for which there are `trials` enough to be shown."""
    known = [each for each in trials if each.objectives and each.objectives[0] is not None]
    if len(known) < 2:
        return ()
    return (_front(result, known), _over_time(result, known), _parallel(result, known), *_importances(result))


def _front(result: TuneResult, trials: Sequence[Trial]) -> Plot:
    """Each trial by what is to be least and by the next of it, or else by its score."""
    study, names = result.study, result.study.settings.least
    kind = study.kinds[0]
    if len(names) > 1:
        shown = [(each, each.objectives[0], each.objectives[1]) for each in trials]
        y_label = f"{names[1]}, less is better"
    else:
        shown = [(each, each.objectives[0], each.figures.scores.get(kind.name)) for each in trials]
        y_label = f"{kind.called} on validation"
    points = [(trial, float(x), float(y)) for trial, x, y in shown if x is not None and y is not None]
    best_ones = {each.number for each in front(result.trials)}
    titles: dict[str, str] = {}
    with styled("front"):
        axes, figure = empty_axes(_SIZE, left=0.13)
        for trial, x, y in points:
            marker = "o" if trial.reaches_goal else "x"
            colour = OPTIMIZED if trial.number in best_ones else FLOAT if trial.reaches_goal else QUIET
            (drawn,) = axes.plot([x], [y], marker, color=colour, markersize=7, alpha=1.0 if trial.reaches_goal else 0.6)
            drawn.set_gid(f"trial-{trial.number}")
            titles[f"front-trial-{trial.number}"] = (
                f"trial {trial.number}: {values_told(trial.values)}; {reached_told(trial, study)}"
            )
        on_front = [(x, y) for trial, x, y in points if trial.number in best_ones]
        if len(names) > 1 and len(on_front) > 1:
            axes.plot(*zip(*sorted(on_front), strict=True), color=OPTIMIZED, linewidth=1, zorder=0)
        if result.best is not None and (place := next(((x, y) for t, x, y in points if t is result.best), None)):
            axes.plot(*place, "o", markersize=13, markerfacecolor="none", markeredgecolor=INK)
        _scaled(axes, [x for _, x, _ in points])
        axes.set_xlabel(f"{names[0]}, less is better")
        axes.set_ylabel(y_label)
        svg = _titled(as_svg(figure, "front"), titles)
    reached = sum(trial.reaches_goal for trial, _, _ in points)
    return Plot(svg, "Trials", f"{len(points)} trials, of which {reached} reach the goal")


def _over_time(result: TuneResult, trials: Sequence[Trial]) -> Plot:
    name, kinds = result.study.settings.least[0], result.study.kinds
    with styled("over-time"):
        axes, figure = empty_axes(_SIZE, left=0.13)
        for reaches, colour, marker in ((True, FLOAT, "o"), (False, QUIET, "x")):
            some = [each for each in trials if each.reaches_goal is reaches]
            figures = [float(each.objectives[0] or math.nan) for each in some]
            axes.plot([each.number for each in some], figures, marker, color=colour, markersize=5)
        steps = list(so_far(result.trials))
        if steps:
            last = result.trials[-1].number
            x, y = zip(*[*steps, (last, steps[-1][1])], strict=True)
            axes.step(x, y, where="post", color=OPTIMIZED)
        _scaled(axes, [float(each.objectives[0] or math.nan) for each in trials], on_y=True)
        axes.set_xlabel("trial")
        axes.set_ylabel(name)
        svg = as_svg(figure, "over-time")
    told = objective_told(name, steps[-1][1], kinds) if steps else "none reaches the goal"
    return Plot(svg, "Over time", f"the best that reaches the goal after each trial; at the end {told}")


def _parallel(result: TuneResult, trials: Sequence[Trial]) -> Plot:
    """A line for each trial through the values of its parameters, each axis from its least to its largest."""
    parameters = result.study.space.parameters
    titles: dict[str, str] = {}
    with styled("parallel"):
        axes, figure = empty_axes((max(_SIZE[0], 1.4 * len(parameters)), _SIZE[1]), left=0.06)
        for trial in sorted(trials, key=lambda each: each.reaches_goal):
            places = [_share(each, trial.values.get(each.name)) for each in parameters]
            is_best = result.best is not None and trial.number == result.best.number
            colour = OPTIMIZED if is_best else FLOAT if trial.reaches_goal else QUIET
            width, alpha = (2.5, 1.0) if is_best else (1.0, 0.7 if trial.reaches_goal else _FAINT)
            (drawn,) = axes.plot(range(len(parameters)), places, color=colour, linewidth=width, alpha=alpha, marker=".")
            drawn.set_gid(f"trial-{trial.number}")
            titles[f"parallel-trial-{trial.number}"] = f"trial {trial.number}: {values_told(trial.values)}"
        axes.set_xticks(range(len(parameters)), [_axis(each) for each in parameters])
        axes.set_yticks([])
        svg = _titled(as_svg(figure, "parallel"), titles)
    return Plot(svg, "Values", "a line for each trial through the values of its parameters")


def _importances(result: TuneResult) -> Iterator[Plot]:
    if not result.importances:
        return
    names, shares = zip(*reversed(result.importances), strict=True)
    with styled("importances"):
        axes, figure = empty_axes((_SIZE[0], 0.8 + 0.35 * len(names)), left=0.4)
        axes.barh(range(len(names)), shares, color=FLOAT)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel(f"share of what decides {result.study.settings.least[0]}")
        svg = as_svg(figure, "importances")
    told = ", ".join(f"{name} {100 * share:.0f} %" for name, share in result.importances)
    yield Plot(svg, "What matters", told)


def _share(parameter: Parameter, value: object) -> float:
    """Where a value lies on its axis, 0 to 1; NaN where the trial has none."""
    scale = parameter.scale
    if isinstance(scale, Choices):
        return scale.values.index(value) / max(1, len(scale.values) - 1) if value in scale.values else math.nan
    if not isinstance(value, int | float):
        return math.nan
    low, high = (math.log(scale.low), math.log(scale.high)) if scale.is_log else (scale.low, scale.high)
    at = math.log(value) if scale.is_log else value
    return (at - low) / (high - low) if high > low else 0.5


def _axis(parameter: Parameter) -> str:
    """The name of an axis, with what its ends are."""
    scale = parameter.scale
    name = parameter.name.rpartition(".")[2]
    if isinstance(scale, Choices):
        low, high = json.dumps(scale.values[0]), json.dumps(scale.values[-1])
    else:
        low, high = f"{scale.low:g}", f"{scale.high:g}"
    return f"{name}\n{low} – {high}"


def _scaled(axes: object, values: Sequence[float], *, on_y: bool = False) -> None:
    known = [each for each in values if each > 0 and math.isfinite(each)]
    if known and max(known) > _LOGARITHMIC_FROM * min(known):
        getattr(axes, "set_yscale" if on_y else "set_xscale")("log")


def _titled(svg: str, titles: dict[str, str]) -> str:
    """The plot whose points say what they are when a pointer rests on them."""

    def titled(found: re.Match[str]) -> str:
        title = titles.get(found[1])
        return found[0] if title is None else f"{found[0]}<title>{escape(title)}</title>"

    return re.sub(r'<g id="([^"]+)">', titled, svg)
