"""A benchmark for people: one page with its tables and curves."""

from __future__ import annotations

from pathlib import Path

from edgeopt.bench.layers import side_by_side
from edgeopt.bench.plots import layer_plots, plots
from edgeopt.bench.table import Bench
from edgeopt.bench.terminal import described
from edgeopt.report.html import environment
from edgeopt.report.style import style_sheet


def render_page(bench: Bench) -> str:
    """The page, which loads nothing from elsewhere."""
    return (
        environment(Path(__file__).parent)
        .get_template("page.html.j2")
        .render(
            bench=bench,
            style=style_sheet(),
            plots=plots(bench),
            layer_plots=layer_plots(bench),
            pairs=tuple(side_by_side(bench)),
            described=described,
        )
    )
