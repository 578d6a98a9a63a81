"""A study for people: one page with its front, its trials and what was found."""

from __future__ import annotations

import math
from pathlib import Path

from edgeopt.report.html import environment
from edgeopt.report.style import style_sheet
from edgeopt.tuning.figures import objective_told, reached_told, values_told
from edgeopt.tuning.plots import plots
from edgeopt.tuning.result import TuneResult
from edgeopt.tuning.terminal import outcome
from edgeopt.tuning.trials import Trial
from edgeopt.tuning.winner import front, misses

PAGE = "tune.html"
_MOST = 1000  # trials that a browser shows, and a reader reads, without pain


def render_page(result: TuneResult) -> str:
    """The page, which loads nothing from elsewhere; of many trials it shows the best, and others evenly."""
    shown = _shown(result)
    return (
        environment(Path(__file__).parent)
        .get_template("page.html.j2")
        .render(
            result=result,
            study=result.study,
            style=style_sheet(),
            shown=shown,
            plots=plots(result, shown),
            misses=misses,
            values_told=values_told,
            objective_told=objective_told,
            reached_told=reached_told,
            outcome=outcome,
        )
    )


def _shown(result: TuneResult) -> list[Trial]:
    """All trials, or so many of them: the front, the best, and of the rest each so-manieth."""
    trials = result.trials
    if len(trials) <= _MOST:
        return list(trials)
    chosen = {each.number for each in front(trials)[: _MOST // 2]}
    chosen |= {result.best.number} if result.best else set()
    chosen |= set(range(0, len(trials), math.ceil(len(trials) / (_MOST - len(chosen)))))
    return [each for each in trials if each.number in chosen]
