"""Where a file errs, for people: one page with charts and a table in the network's order."""

from __future__ import annotations

from pathlib import Path

from edgeopt.report.html import environment
from edgeopt.report.style import style_sheet
from edgeopt.why.plots import plots
from edgeopt.why.sentences import bits, db, sentences, told_outputs
from edgeopt.why.table import Part, Why


def render_page(why: Why) -> str:
    """The page, which loads nothing from elsewhere."""
    return (
        environment(Path(__file__).parent)
        .get_template("page.html.j2")
        .render(
            why=why,
            style=style_sheet(),
            plots=plots(why),
            sentences=sentences(why),
            figure=lambda noise: db(noise).removesuffix(" dB"),
            bits=bits,
            outputs=told_outputs(why),
            parts=tuple(Part),
            largest=max((why.share_at_output(layer) for layer in why.layers), default=0.0) or 1.0,
        )
    )
