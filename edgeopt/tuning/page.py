"""A study for people: one page with its front, its trials and what was found."""

from __future__ import annotations

from pathlib import Path

from edgeopt.report.html import environment
from edgeopt.report.style import style_sheet
from edgeopt.tuning.figures import objective_told, reached_told, values_told
from edgeopt.tuning.plots import plots
from edgeopt.tuning.result import TuneResult
from edgeopt.tuning.terminal import outcome
from edgeopt.tuning.winner import front, misses

PAGE = "tune.html"


def render_page(result: TuneResult) -> str:
    """The page, which loads nothing from elsewhere."""
    return (
        environment(Path(__file__).parent)
        .get_template("page.html.j2")
        .render(
            result=result,
            study=result.study,
            style=style_sheet(),
            plots=plots(result),
            front=front(result.trials),
            misses=misses,
            values_told=values_told,
            objective_told=objective_told,
            reached_told=reached_told,
            outcome=outcome,
        )
    )
