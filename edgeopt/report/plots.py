"""The plots of a report's page: accuracy against latency, and the curves of trainings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from matplotlib.ticker import FuncFormatter, MaxNLocator

from edgeopt.report import figures
from edgeopt.report.compare import Comparison
from edgeopt.report.drawing import FLOAT, INK, OPTIMIZED, QUIET, SERIES, Plot, as_svg, empty_axes, styled
from edgeopt.report.schema import Row
from edgeopt.tasks.scores import Score
from edgeopt.tasks.sections import SectionPlot
from edgeopt.types import Curve, PassRecord, Role

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_SERIES = len(SERIES)
_DIGIT = 6.4  # px that a digit of an axis takes at most
_LABEL_ROOM = 12.0  # px beside the digits


def trade_off(rows: Sequence[Row], pairs: Sequence[Comparison]) -> Plot | None:
    """Accuracy against latency, a bubble's area for the file's bytes, an arrow from each float file to the optimized
    one.
    """
    drawn = [row for row in rows if _place(row)]
    if len(drawn) < 2:
        return None  # there is nothing to trade
    kind = next(row.score.kind for row in drawn if row.score)
    with styled("trade-off"):
        axes, figure = empty_axes((6.6, 3.8), left=0.115)
        largest = max(row.size_bytes or 0 for row in drawn)
        for row in drawn:
            _draw_file(axes, row, largest)
        for pair in pairs:
            start, end = _place(pair.baseline), _place(pair.optimized)
            if start and end and start != end:
                arrow = {"arrowstyle": "-|>", "color": QUIET, "linewidth": 1.1, "shrinkA": 5, "shrinkB": 5}
                axes.annotate("", end, start, arrowprops=arrow, zorder=2)
        _limits(axes, drawn)
        _label_files(axes, drawn, pairs)
        axes.set_xlabel("p50 latency, ms (left is faster)")
        axes.set_ylabel(f"test {kind.called}, {kind.unit}" if kind.unit else f"test {kind.called}")
        svg = as_svg(figure, "trade-off")
    told = "; ".join(
        f"{row.export} {row.precision}: {figures.score(row.score)} at "
        f"{figures.milliseconds(row.latency_ms.p50)}, {figures.size(row.size_bytes)}"
        for row in drawn
        if row.latency_ms
    )
    return Plot(svg, f"{kind.called.capitalize()} against latency", told)


def lines(plot: SectionPlot, identity: str) -> Plot:
    """The lines of a task's plot."""
    with styled(identity):
        axes, figure = empty_axes((4.4, 2.8), left=0.14)
        for place, (name, x, y) in enumerate(plot.lines):
            axes.plot(x, y, color=SERIES[place % len(SERIES)], linewidth=1.6, label=name)
        axes.set_xlabel(plot.x_label)
        axes.set_ylabel(plot.y_label)
        if 1 < len(plot.lines) <= _MOST_SERIES:
            axes.legend(fontsize=9)
        svg = as_svg(figure, identity)
    told = "; ".join(f"{name}, {len(x)} points" for name, x, _ in plot.lines)
    return Plot(svg, plot.title, f"{plot.title}, {plot.y_label} by {plot.x_label}: {told}")


def training_curves(record: PassRecord, number: int) -> tuple[Plot, ...]:
    """A plot for each quantity that a pass recorded, such as loss; several where it has more series
    than one can hold.
    """
    groups: dict[tuple[str, str], list[Curve]] = {}
    for curve in record.curves:
        if curve.x:
            groups.setdefault((curve.y_label or curve.name, curve.x_label), []).append(curve)
    parts = [
        (labels, curves[start : start + _MOST_SERIES])
        for labels, curves in groups.items()
        for start in range(0, len(curves), _MOST_SERIES)
    ]
    return tuple(
        _curve_plot(record.name, y_label, x_label, curves, f"pass-{number}-{place}")
        for place, ((y_label, x_label), curves) in enumerate(parts)
    )


def _curve_plot(owner: str, y_label: str, x_label: str, curves: Sequence[Curve], identity: str) -> Plot:
    with styled(identity):
        axes, figure = empty_axes((4.4, 2.4), left=0.14)
        for color, curve in zip(SERIES, curves, strict=False):
            marker = "o" if len(curve.x) <= 12 else ""
            axes.plot(curve.x, curve.y, color=color, linewidth=1.6, marker=marker, markersize=3.5, label=curve.name)
        axes.set_xlabel(x_label)
        if all(float(x).is_integer() for curve in curves for x in curve.x):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        places = sorted({x for curve in curves for x in curve.x})
        if len(places) == 1:  # no scale can be drawn through one place
            axes.set_xticks(places, [f"{places[0]:g}"])
            axes.set_xlim(places[0] - 1, places[0] + 1)
        heights = {y for curve in curves for y in curve.y}
        if len(heights) == 1:
            axes.set_yticks([*heights])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
        longest = max(len(f"{value:.4g}") for value in axes.get_yticks())
        figure.subplots_adjust(left=max(0.14, (longest * _DIGIT + _LABEL_ROOM) / (4.4 * 72)))
        if len(curves) > 1:
            axes.legend(fontsize=9)
        svg = as_svg(figure, identity)
    ends = "; ".join(f"{curve.name} from {curve.y[0]:.4g} to {curve.y[-1]:.4g}" for curve in curves)
    title = f"{y_label} ({curves[0].name})" if len(curves) == 1 and curves[0].name != y_label else y_label
    return Plot(svg, title, f"{owner}, {y_label} by {x_label}: {ends}")


# ---- the trade-off plot --------------------------------------------------------------------------------------------


def _place(row: Row) -> tuple[float, float] | None:
    """Where a file stands: milliseconds, and the score in per cent or its own unit."""
    if row.latency_ms is None or row.score is None:
        return None
    return row.latency_ms.p50, _scale(row.score) * row.score.value


def _scale(score: Score) -> float:
    return 100.0 if score.kind.is_share else 1.0


def _draw_file(axes: Axes, row: Row, largest: int) -> None:
    place = _place(row)
    assert place  # only files that have one are drawn
    color = FLOAT if row.role is Role.BASELINE else OPTIMIZED
    area = 900 * (row.size_bytes or 0) / largest if largest else 60
    axes.scatter(*place, s=max(area, 12), color=color, alpha=0.28, linewidths=0, zorder=3)
    axes.scatter(*place, s=16, color=color, linewidths=0, zorder=5)
    if row.score:
        low, high = (_scale(row.score) * bound for bound in row.score.interval)
        axes.vlines(place[0], low, high, color=color, linewidth=1.2, alpha=0.6, zorder=4)


def _limits(axes: Axes, rows: Iterable[Row]) -> None:
    """Latency from 0, unless the files lie far apart; the score around its intervals."""
    places = [place for row in rows if (place := _place(row))]
    latencies = [place[0] for place in places]
    if min(latencies) > 0 and max(latencies) > 12 * min(latencies):
        axes.set_xscale("log")
        axes.set_xlim(min(latencies) / 1.8, max(latencies) * 1.8)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.set_xlim(0, max(latencies) * 1.25 or 1)
    scores = [row.score for row in rows if row.score]
    bounds = [_scale(score) * bound for score in scores for bound in score.interval] + [place[1] for place in places]
    margin = max(0.12 * (max(bounds) - min(bounds)), 0.4)
    axes.set_ylim(min(bounds) - margin, max(bounds) + margin)


_Box = tuple[float, float, float, float]  # left, bottom, right and top, in pixels

_FREE = 30.0  # px between a name and the next thing that are enough


def _label_files(axes: Axes, rows: Sequence[Row], pairs: Sequence[Comparison]) -> None:
    """Names beside the points, each on the side where other points, names and arrows are farthest."""
    points = [tuple(axes.transData.transform(place)) for row in rows if (place := _place(row))]
    crossed = [axes.transData.transform(place) for pair in pairs for place in _along_arrow(pair)]
    room = axes.get_window_extent()
    names: list[_Box] = []
    for row, point in zip(rows, points, strict=True):
        text = f"{row.export} {row.precision}"
        others = [*((x, y, x, y) for x, y in [*points, *crossed] if (x, y) != point), *names]
        boxes = _label_boxes(point, len(text))
        inside = [box for box in boxes if box[0] >= room.x0 and box[2] <= room.x1] or boxes
        box = max(inside, key=lambda box: min([_FREE, *(_distance(box, other) for other in others)]))
        names.append(box)
        axes.annotate(
            text,
            (box[0], (box[1] + box[3]) / 2),
            xycoords="figure pixels",
            verticalalignment="center",
            fontsize=9,
            color=QUIET if row.role is Role.BASELINE else INK,
            zorder=6,
        )


def _along_arrow(pair: Comparison) -> list[tuple[float, float]]:
    """Places on the way from the float file to the optimized one."""
    start, end = _place(pair.baseline), _place(pair.optimized)
    if start is None or end is None:
        return []
    shares = [step / 12 for step in range(1, 12)]
    return [(start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])) for share in shares]


def _label_boxes(point: Sequence[float], letters: int) -> list[_Box]:
    """Where a name may stand around its point: right or left, below or above; its width is an estimate."""
    width, half = 5.2 * letters, 6.0
    lefts = (point[0] + 9, point[0] - 9 - width)
    middles = (point[1] - 15, point[1] + 15, point[1] - 30, point[1] + 30)
    return [(left, middle - half, left + width, middle + half) for middle in middles for left in lefts]


def _distance(one: _Box, other: _Box) -> float:
    """Pixels between two boxes; 0 where they meet."""
    across = max(0.0, one[0] - other[2], other[0] - one[2])
    up = max(0.0, one[1] - other[3], other[1] - one[3])
    return float((across**2 + up**2) ** 0.5)
