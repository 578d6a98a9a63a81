"""A scan for people: its cells as short texts, and one page with a heat map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeopt.report import figures
from edgeopt.report.html import environment
from edgeopt.report.style import style_sheet
from edgeopt.sensitivity.table import Cell, Measure, Scan, Verdict

_REDDEST = 100.0  # in thresholds: scores beyond are shown in the same red


@dataclass(frozen=True)
class ShownCell:
    """A cell as a text, the class of its colour ("hit", "miss" or "skipped"), and the strength of that, 0 to 1."""

    text: str
    tone: str
    share: float
    chosen: bool
    images: int


@dataclass(frozen=True)
class ShownLayer:
    """A layer's cells and the level that is recommended, as a text."""

    name: str
    cells: Sequence[ShownCell]
    recommended: str


def threshold_text(scan: Scan) -> str:
    """The threshold in the unit of the figures."""
    if scan.threshold is None:
        return figures.MISSING
    if scan.measure is Measure.LOGITS:
        return f"{scan.threshold:g}"
    points = f"{100 * scan.threshold:g}"
    return f"{points} point" if points == "1" else f"{points} points"


def cell_text(cell: Cell, scan: Scan) -> str:
    """The score; where the cell was not run to the end, the bounds that are certain, if there are any."""
    if cell.verdict is Verdict.SKIPPED:
        return figures.MISSING
    if cell.images < scan.images and cell.verdict is Verdict.FAILS:
        return f"≥ {_figure(cell.least, scan)}"
    if cell.images < scan.images and cell.verdict is Verdict.PASSES and cell.most is not None:
        return f"≤ {_figure(cell.most, scan)}"
    return _figure(cell.score, scan)


def level_text(level: float, scan: Scan) -> str:
    """The level in words, or that the layer is left as it is."""
    return "untouched" if level == scan.untouched else f"{level:g}"


def shown_layers(scan: Scan) -> list[ShownLayer]:
    """All layers, in the order of the program."""
    recommended = scan.recommended if scan.threshold is not None else {}
    return [
        ShownLayer(
            name,
            [
                ShownCell(cell_text(cell, scan), *_tone(cell, scan), recommended.get(name) == cell.level, cell.images)
                for cell in cells
            ],
            level_text(recommended[name], scan) if name in recommended else figures.MISSING,
        )
        for name, cells in scan.layers.items()
    ]


def summary(scan: Scan) -> str:
    """What was recommended, in one sentence."""
    if scan.threshold is None:
        return "Nothing is recommended without a threshold."
    chosen = list(scan.recommended.values())
    counts = [(level, chosen.count(level)) for level in (*scan.levels[::-1], scan.untouched)]
    parts = [f"{level_text(level, scan)} for {_layers(count)}" for level, count in counts if count]
    return f"Recommended: {', '.join(parts)}."


def _layers(count: int) -> str:
    return f"{count} layer" if count == 1 else f"{count} layers"


def savings(scan: Scan) -> float:
    """The share of all images of all layers and levels that nobody had to run, 0 to 1."""
    ran = sum(cell.images for cell in scan.cells)
    return 1 - ran / (len(scan.cells) * scan.images)


def render_page(scan: Scan, recipe_name: str) -> str:
    """The page, which loads nothing from elsewhere."""
    return (
        environment(Path(__file__).parent)
        .get_template("page.html.j2")
        .render(
            scan=scan,
            recipe_name=recipe_name,
            style=style_sheet(),
            levels=[f"{level:g}" for level in scan.levels],
            layers=shown_layers(scan),
            title=scan.title,
            threshold=threshold_text(scan),
            summary=summary(scan),
            savings=savings(scan),
        )
    )


def _figure(value: float, scan: Scan) -> str:
    if scan.measure is Measure.LOGITS:
        return f"{value:.2g}"
    text = f"{abs(100 * value):.1f}"
    return text if value >= 0 or text == "0.0" else f"{figures.MINUS}{text}"


def _tone(cell: Cell, scan: Scan) -> tuple[str, float]:
    """Green, the paler the closer to the threshold; above it red, the stronger the farther; neither where a harsher
    level passes.
    """
    if cell.verdict is Verdict.SKIPPED:
        return "skipped", 0.0
    if scan.threshold is None or scan.threshold <= 0:
        return ("miss" if cell.score > 0 else "hit"), min(max(cell.score, 0.0), 1.0)
    ratio = cell.score / scan.threshold
    if cell.verdict is Verdict.PASSES:
        return "hit", min(max(1.0 - ratio, 0.0), 1.0)
    return "miss", min(math.log(max(ratio, 1.0)) / math.log(_REDDEST), 1.0)
