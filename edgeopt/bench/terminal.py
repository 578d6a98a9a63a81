"""A benchmark in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeopt.arrays import size_in_words
from edgeopt.bench.layers import SideBySide, side_by_side
from edgeopt.bench.sheet import Sheet
from edgeopt.bench.table import Bench, BenchDevice, BenchRow, OperatorsRow, WholeRow
from edgeopt.report import devices, figures
from edgeopt.tasks.scores import ACCURACY

_SHOWN_LAYERS = 12


def render(bench: Bench, console: Console, written: Sequence[Path]) -> None:
    """Prints the tables of a benchmark, and where its files lie."""
    for sentence in bench.verdicts:
        console.print(Text(f"! {sentence}", style="yellow"))
    _rows(bench).print(console)
    if bench.devices:
        _answers(bench).print(console)
        for device in bench.devices:
            console.print(Text(described(device), style="dim"))
    if bench.whole:
        _whole(bench).print(console)
    if bench.sustained:
        _sustained(bench).print(console)
    for pair in side_by_side(bench):
        console.print(_layers(pair))
    for method in dict.fromkeys(row.energy.method for row in bench.rows if row.energy):
        console.print(Text(f"mJ: of an image, by {method}", style="dim"))
    for sentence in (*_reasons(bench), *bench.left_out):
        console.print(Text(sentence, style="dim"))
    console.print(Text(f"input: {bench.image}", style="dim"))
    if bench.labelled:
        accuracies = (f"{_name(row, bench)} {figures.score(row.score)}" for row in bench.rows)
        right = "right for" if bench.score_called == ACCURACY.called else f"{bench.score_called} on"
        console.print(Text(f"{right} {bench.labelled}: {', '.join(dict.fromkeys(accuracies))}", style="dim"))
    for file in written:
        console.print(Text(str(file)))


def _rows(bench: Bench) -> Sheet:
    on = ["device"] if bench.devices else []
    px = ["px"] if bench.over_sizes else []
    told = {
        bench.score_called: bool(px),
        "mJ": any(row.energy for row in bench.rows),
    }
    more = [name for name, is_told in told.items() if is_told]
    values = ("p50 ms", "", "p90", "p99", "n/s", *more, "load", "first", "memory")
    sheet = Sheet(("file", *on, *px, "n", "threads"), values)
    for row in bench.rows:
        place = (_name(row, bench), *([row.device] if on else []), *([size_in_words(row.image_size)] if px else []))
        place = (*place, str(row.batch_size), str(row.threads))
        if row.latency_ms is None:
            sheet.add(*place, figures.MISSING)
            continue
        latency = row.latency_ms
        shown = {
            bench.score_called: figures.score(row.score),
            "mJ": f"{row.energy.mj_per_image:.3g}" if row.energy else figures.MISSING,
        }
        sheet.add(
            *place,
            *(_ms(latency.p50), _faster(row), _ms(latency.p90), _ms(latency.p99)),
            f"{latency.images_per_s:.4g}" if latency.images_per_s else figures.MISSING,
            *(shown[name] for name in more),
            *(_ms(latency.load), _ms(latency.first), figures.size(row.peak_memory_bytes)),
        )
    return sheet


def _answers(bench: Bench) -> Sheet:
    values = ("images", bench.score_called, "as its program", "other than here", "outputs apart by")
    px = ["px"] if bench.over_sizes else []
    sheet = Sheet(("file", "device", *px), values)
    for row in bench.answered:
        told = row.answers
        assert told is not None  # chosen so
        apart = told.max_logit_difference
        sheet.add(
            *(_name(row, bench), row.device, *([size_in_words(row.image_size)] if px else []), str(told.images)),
            *(figures.score(told.score), figures.percent(told.agreement)),
            figures.MISSING if told.differing is None else str(told.differing),
            figures.MISSING if apart is None else "nothing" if apart == 0 else f"{apart:.2g}",
        )
    return sheet


def described(device: BenchDevice) -> str:
    """A device in a line: what it is, how it is, and the versions that are there."""
    if device.facts is None:
        return device.error or f"{device.name}: it said nothing of itself"
    return devices.described(device.name, device.facts)


def _whole(bench: Bench) -> Sheet:
    on = ["device"] if bench.devices else []
    sheet = Sheet(("file", *on, "threads"), ("decode ms", "resize", "file", "answer", "total", "file's share"))
    for row in bench.whole:
        name = _name(next(each for each in bench.rows if each.file == row.file), bench)
        place = (name, *([row.device] if on else []), str(row.threads))
        if row.pipeline_ms is None:
            sheet.add(*place, figures.MISSING)
            continue
        way = row.pipeline_ms
        parts = (way.decode, way.preprocess, way.file, way.answer, way.total)
        sheet.add(*place, *map(_ms, parts), figures.percent(way.file_share))
    return sheet


def _sustained(bench: Bench) -> Sheet:
    on = ["device"] if bench.devices else []
    metered = any(each.mj_per_image is not None for row in bench.sustained for each in row.minutes)
    values = ("minutes", "first ms", "last ms", "last against first", "warmest", *(["last mJ"] if metered else []))
    sheet = Sheet(("file", *on, "threads"), values)
    for row in bench.sustained:
        name = _name(next(each for each in bench.rows if each.file == row.file), bench)
        place = (name, *([row.device] if on else []), str(row.threads))
        if not row.minutes:
            sheet.add(*place, figures.MISSING)
            continue
        first, last = row.minutes[0], row.minutes[-1]
        warm = [each.temperature_c for each in row.minutes if each.temperature_c is not None]
        sheet.add(
            *(*place, f"{last.minute:.3g}", _ms(first.p50_ms), _ms(last.p50_ms)),
            figures.factor(row.slowdown),
            f"{max(warm):.0f} °C" if warm else figures.MISSING,
            *([figures.MISSING if last.mj_per_image is None else f"{last.mj_per_image:.3g}"] if metered else []),
        )
    return sheet


def _layers(pair: SideBySide) -> Table:
    threads = f"{pair.threads} {'thread' if pair.threads == 1 else 'threads'}"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"{pair.title}, {threads}", title_justify="left")
    table.add_column("layer or operator", no_wrap=True)
    for column in ("float ms", "optimized ms", "faster"):
        table.add_column(column, justify="right", no_wrap=True)
    for layer in pair.worst_first[:_SHOWN_LAYERS]:
        table.add_row(layer.name, _ms(layer.float_ms), _ms(layer.optimized_ms), figures.factor(layer.faster))
    totals = [row.total_ms if row else None for row in (pair.before, pair.after)]
    table.add_section()
    table.add_row("all operators", *map(_ms, totals), "")
    return table


def _reasons(bench: Bench) -> list[str]:
    """Why there are no figures, each reason once for all files that have it at the same places."""
    places: dict[tuple[str, str, str], list[str]] = {}
    away = {each.name for each in bench.devices if each.error}  # a verdict says why
    own = bench.own_sizes
    for row in bench.rows:
        if row.error and row.device not in away:
            name = f"{_name(row, bench)}{f' on {row.device}' if row.device else ''}"
            is_own = row.image_size == own[row.file]
            what, place = ("images in a call", str(row.batch_size)) if is_own else ("px", size_in_words(row.image_size))
            places.setdefault((name, what, row.error), []).append(place)
    names: dict[str, list[str]] = {}
    for (name, what, error), found in places.items():
        at = ", ".join(dict.fromkeys(found))
        names.setdefault(f"with {at} {what}: {error}", []).append(name)
    untold = [f"{_name(_row_of(row, bench), bench)}: {row.error}" for row in bench.operators if row.error]
    for way in bench.whole:
        if way.error:
            where = f" on {way.device}" if way.device else ""
            untold.append(f"the whole way through {_name(_row_of(way, bench), bench)}{where}: {way.error}")
    return [*dict.fromkeys(untold), *(f"{', '.join(found)} {reason}" for reason, found in names.items())]


def _row_of(row: OperatorsRow | WholeRow, bench: Bench) -> BenchRow:
    return next(each for each in bench.rows if each.file == row.file)


def _name(row: BenchRow, bench: Bench) -> str:
    name = f"{row.export} {row.precision}"
    return f"{row.file.partition('/')[0]}: {name}" if len(bench.runs) > 1 else name


def _ms(value: float | None) -> str:
    return figures.milliseconds(value, unit="")


def _faster(row: BenchRow) -> Text:
    if row.faster is None:
        return Text("")
    if row.faster_is_noise:
        return Text("≈ float", style="dim")
    if row.faster >= 1:
        return Text(f"{figures.factor(row.faster)} faster", style="green")
    return Text(f"{figures.factor(1 / row.faster)} slower", style="red")
