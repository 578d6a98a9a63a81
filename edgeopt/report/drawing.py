"""How plots are drawn: SVG text whose colours are the page's, so that they follow it into the dark.

matplotlib is imported here, at the top: whoever imports this module draws.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours that no plot uses otherwise; each becomes a custom property of the page.
INK, QUIET, LINE, FLOAT, OPTIMIZED, THIRD, FOURTH = (f"#0100{number:02x}" for number in range(1, 8))
_PROPERTIES = {
    INK: "--ink",
    QUIET: "--quiet",
    LINE: "--line",
    FLOAT: "--float",
    OPTIMIZED: "--optimized",
    THIRD: "--third",
    FOURTH: "--fourth",
}
SERIES = (OPTIMIZED, FLOAT, THIRD, FOURTH)
"""The colours of series, in their order."""

_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": LINE,
    "axes.grid": True,
    "axes.labelcolor": QUIET,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.dpi": 72,  # that of SVG, so that a pixel is a point
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.size": 10,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.labelcolor": QUIET,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,  # a class may be called "$5$"
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": QUIET,
    "ytick.labelcolor": QUIET,
}


@dataclass(frozen=True)
class Plot:
    """An SVG element, a title and the text that stands for it where it cannot be seen."""

    svg: str
    title: str
    description: str


@contextmanager
def styled(identity: str) -> Iterator[None]:
    """The page's settings for matplotlib; `identity` makes identifiers repeatable and the plot's own."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": identity}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the reader's browser has the fonts
        yield


def empty_axes(inches: tuple[float, float], left: float) -> tuple[Axes, Figure]:
    """Empty axes of a size; margins are fixed, for measuring every text first takes longer than drawing."""
    figure = Figure(figsize=inches)
    axes = figure.subplots()
    figure.subplots_adjust(left=left, right=0.98, top=0.96, bottom=0.48 / inches[1])
    return axes, figure


def as_svg(figure: Figure, identity: str) -> str:
    """The figure as an SVG element that lives inside a page: no prologue, own identifiers, the page's colours and
    fonts.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)  # it would style the whole page
    text = re.sub(r'<svg [^>]*?viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', text, count=1)
    text = re.sub(r'\bid="', f'id="{identity}-', text)
    text = text.replace('xlink:href="#', f'href="#{identity}-').replace("url(#", f"url(#{identity}-")
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
    for color, name in _PROPERTIES.items():
        text = text.replace(color, f"var({name})")
    return text
