"""Curves of a benchmark: by image size, with accuracy beside it, by images in a call, by threads, and by minutes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from matplotlib.ticker import FuncFormatter, MaxNLocator

from edgeopt.arrays import sides_of
from edgeopt.bench.layers import LayerCost, SideBySide, side_by_side
from edgeopt.bench.table import Bench, BenchRow
from edgeopt.measure.latency import Latency
from edgeopt.report.drawing import FLOAT, OPTIMIZED, SERIES, Plot, as_svg, empty_axes, styled
from edgeopt.tasks.scores import ACCURACY, ScoreKind
from edgeopt.types import Role

_SIZE = (4.6, 2.7)
_MOST_LAYERS = 16
_MOST_PLACES = 8  # named along an axis


@dataclass(frozen=True)
class Line:
    """One file's figures along an axis, and how far its calls lie apart, if that is known.

    Lines of one `group`, a float file and its optimized one, share a colour.
    """

    name: str
    group: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    band: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    dashed: bool = False


def plots(bench: Bench) -> tuple[Plot, ...]:
    """A plot for each axis that has at least two places."""
    return (
        *_over_sizes(bench),
        *_over_batches(bench),
        *_over_threads(bench),
        *_over_minutes(bench),
    )


def layer_plots(bench: Bench) -> tuple[Plot, ...]:
    """Bars of the layers that cost most, a plot for each file with its float file."""
    return tuple(_of_layers(pair, f"layers-{number}") for number, pair in enumerate(side_by_side(bench)))


def _of_layers(pair: SideBySide, identity: str) -> Plot:
    layers = pair.worst_first[:_MOST_LAYERS]
    places = [float(-place) for place in range(len(layers))]
    with styled(identity):
        axes, figure = empty_axes((_SIZE[0] * 2, 0.9 + 0.3 * len(layers)), left=0.28)
        bars = (
            ("float", FLOAT, 0.2, [layer.float_ms for layer in layers]),
            ("optimized", OPTIMIZED, -0.2, [layer.optimized_ms for layer in layers]),
        )
        for label, colour, shift, values in bars:
            if any(value is not None for value in values):
                widths = [value or 0.0 for value in values]
                axes.barh([place + shift for place in places], widths, 0.38, color=colour, label=label, linewidth=0)
        axes.set_yticks(places, [layer.name for layer in layers])
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("ms")
        axes.legend(fontsize=8, loc="lower right")
        svg = as_svg(figure, identity)
    told = "; ".join(
        f"{layer.name}: " + ", ".join(f"{value:.3g} ms {label}" for label, value in _both(layer) if value is not None)
        for layer in layers
    )
    threads = f"{pair.threads} {'thread' if pair.threads == 1 else 'threads'}"
    return Plot(svg, f"{pair.title}, {threads}: what costs most", told)


def _both(layer: LayerCost) -> tuple[tuple[str, float | None], ...]:
    return (("float", layer.float_ms), ("optimized", layer.optimized_ms))


def _over_sizes(bench: Bench) -> Iterator[Plot]:
    """Latency by image size, and accuracy beside it, which does not depend on threads, on each device."""
    swept = [row for row in bench.over_sizes if row.error is None]
    for device, threads in _each(swept, lambda row: (row.device, row.threads)):
        rows = [row for row in swept if (row.device, row.threads) == (device, threads)]
        title = f"Latency by image size with {threads} {'thread' if threads == 1 else 'threads'}{_on(device)}"
        lines = _lines(rows, _size, lambda latency: latency.p50, banded=True)
        yield from _plot(f"size-{threads}{device}", title, "image size, px", "p50 to p90, ms", lines)
    for device in dict.fromkeys(row.device for row in swept):
        own = [row for row in swept if row.device == device]
        rows = [row for row in own if row.threads == own[0].threads]
        kinds = [row.score.kind for row in rows if row.score] or [ACCURACY]
        title = f"{kinds[0].called[:1].upper()}{kinds[0].called[1:]} on the test split at each image size{_on(device)}"
        unit = f", {kinds[0].unit}" if kinds[0].unit else ""
        yield from _plot(
            f"accuracy{device}", title, "image size, px", f"{kinds[0].called}{unit}", _scores(rows, kinds[0])
        )


def _scores(rows: Sequence[BenchRow], kind: ScoreKind) -> list[Line]:
    """The primary score of each file by image size, with its 95 % interval where it is known; shares in per cent."""
    lines, scale = [], 100 if kind.is_share else 1
    for file in dict.fromkeys(row.file for row in rows):
        own = sorted((row for row in rows if row.file == file and row.score is not None), key=_size)
        known = [row.score for row in own if row.score is not None and row.score.kind == kind]
        if len(own) < 2 or len(known) < len(own):
            continue
        band = tuple(scale * each.interval[0] for each in known), tuple(scale * each.interval[1] for each in known)
        first = own[0]
        lines.append(
            Line(
                f"{first.export} {first.precision}",
                _group(first),
                tuple(map(_size, own)),
                tuple(scale * each.value for each in known),
                band,
                first.role is Role.BASELINE,
            )
        )
    return lines


def _size(row: BenchRow) -> float:
    """The edge of a square with as many px."""
    height, width = sides_of(row.image_size)
    return math.sqrt(height * width)


def _over_batches(bench: Bench) -> Iterator[Plot]:
    for device, threads in _each(bench.rows, lambda row: (row.device, row.threads)):
        rows = [row for row in bench.of_own_size if (row.device, row.threads) == (device, threads)]
        title = f"with {threads} {'thread' if threads == 1 else 'threads'}{_on(device)}"
        lines = _lines(rows, lambda row: row.batch_size, lambda latency: latency.images_per_s or 0.0)
        yield from _plot(
            f"batch-{threads}{device}", f"Images per second {title}", "images in a call", "images per second", lines
        )
        lines = _lines(rows, lambda row: row.batch_size, lambda latency: latency.p50, banded=True)
        yield from _plot(
            f"call-{threads}{device}", f"Latency of a call {title}", "images in a call", "p50 to p90, ms", lines
        )


def _over_threads(bench: Bench) -> Iterator[Plot]:
    for device, batch in _each(bench.rows, lambda row: (row.device, row.batch_size)):
        rows = [row for row in bench.of_own_size if (row.device, row.batch_size) == (device, batch)]
        title = f"with {batch} {'image' if batch == 1 else 'images'} in a call{_on(device)}"
        lines = _lines(rows, lambda row: row.threads, lambda latency: latency.p50, banded=True)
        yield from _plot(f"threads-{batch}{device}", f"Latency {title}", "threads", "p50 to p90, ms", lines)


def _over_minutes(bench: Bench) -> Iterator[Plot]:
    for device, threads in dict.fromkeys((row.device, row.threads) for row in bench.sustained):
        lines = [
            Line(
                f"{own.export} {own.precision}",
                _group(own),
                tuple(each.minute for each in row.minutes),
                tuple(each.p50_ms for each in row.minutes),
                dashed=own.role is Role.BASELINE,
            )
            for row in bench.sustained
            if (row.device, row.threads) == (device, threads) and len(row.minutes) > 1
            for own in [next(each for each in bench.rows if each.file == row.file)]
        ]
        title = f"Without a pause, with {threads} {'thread' if threads == 1 else 'threads'}{_on(device)}"
        yield from _plot(f"minutes-{threads}{device}", title, "minutes", "p50, ms", lines)


def _each(rows: Iterable[BenchRow], key: Callable[[BenchRow], tuple[str, int]]) -> list[tuple[str, int]]:
    return list(dict.fromkeys(map(key, rows)))


def _on(device: str) -> str:
    return f" on {device}" if device else ""


def _lines(
    rows: Sequence[BenchRow],
    x: Callable[[BenchRow], float],
    y: Callable[[Latency], float],
    *,
    banded: bool = False,
) -> list[Line]:
    """A line for each file that was measured in two places or more."""
    lines = []
    for file in dict.fromkeys(row.file for row in rows):
        own = sorted((row for row in rows if row.file == file and row.latency_ms), key=x)
        if len({x(row) for row in own}) < 2:
            continue
        latencies = [row.latency_ms for row in own if row.latency_ms]
        p90s = tuple(each.p90 for each in latencies if each.p90 is not None)
        banded = banded and len(p90s) == len(latencies)
        band = (tuple(each.p50 for each in latencies), p90s) if banded else None
        first = own[0]
        name = f"{first.export} {first.precision}"
        places = tuple(map(x, own)), tuple(map(y, latencies))
        lines.append(Line(name, _group(first), *places, band, first.role is Role.BASELINE))
    return lines


def _group(row: BenchRow) -> str:
    """The run and the export of a file."""
    return f"{row.file.partition('/')[0]} {row.export}"


def _plot(
    identity: str, title: str, x_label: str, y_label: str, lines: Sequence[Line], *, from_zero: bool = True
) -> Iterator[Plot]:
    """Plots of at most as many lines as there are colours: a float file and its optimized one share one."""
    groups = list(dict.fromkeys(line.group for line in lines))
    for start in range(0, len(groups), len(SERIES)):
        shown = groups[start : start + len(SERIES)]
        part = [line for line in lines if line.group in shown]
        colours = dict(zip(shown, SERIES, strict=False))
        own = f"{identity}-{start}"
        with styled(own):
            axes, figure = empty_axes(_SIZE, left=0.14)
            for line in part:
                colour = colours[line.group]
                style = "--" if line.dashed else "-"
                axes.plot(
                    line.x, line.y, style, color=colour, linewidth=1.6, marker="o", markersize=3.5, label=line.name
                )
                if line.band:
                    axes.fill_between(line.x, *line.band, color=colour, alpha=0.15, linewidth=0)
            axes.set_xlabel(x_label)
            axes.set_ylabel(y_label)
            if from_zero:
                axes.set_ylim(bottom=0)
            places = sorted({x for line in part for x in line.x})
            if len(places) <= _MOST_PLACES:
                axes.set_xticks(places, [f"{place:g}" for place in places])
            else:
                axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
            axes.legend(fontsize=8, handlelength=3)
            svg = as_svg(figure, own)
        told = "; ".join(
            f"{line.name}: " + ", ".join(f"{y:.4g} at {x:g}" for x, y in zip(line.x, line.y, strict=True))
            for line in part
        )
        yield Plot(svg, title, f"{y_label} by {x_label}: {told}")
