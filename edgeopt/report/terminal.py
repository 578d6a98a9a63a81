"""The report in the terminal: one row a file, then what it means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from edgeopt.plugins.energy_use import EnergyUse
from edgeopt.report import energies, figures
from edgeopt.report.answers import score_called
from edgeopt.report.compare import Comparison, compare
from edgeopt.report.devices import described, latencies_there, there
from edgeopt.report.schema import GateResult, MeasuredDevice, Report, Row
from edgeopt.report.tables import QUIET, Unsqueezed, bullets, plain_table

_NARROWEST = 80  # letters


def render(report: Report, console: Console, paths: Sequence[Path] = ()) -> None:
    """Prints the report; `paths` are where the reader can go on."""
    parts: list[RenderableType] = [Text(report.recipe.name, style="bold"), Unsqueezed(_files(report), _NARROWEST)]
    parts += _methods(row.energy for row in report.rows)
    parts += [_failure(row) for row in report.rows if row.error]
    parts += [part for device in report.devices if device.files for part in _device(device, report.rows)]
    if report.gates:
        parts.append(Unsqueezed(_gates(report.gates), _NARROWEST))
    if report.verdicts:
        parts.append(bullets(report.verdicts))
    for part in parts:
        console.print(part, crop=False)
        console.print()
    for path in paths:
        # never wrapped, so that terminals can open it
        console.print(Text(str(path), style="cyan"), soft_wrap=True)


def _files(report: Report) -> Table:
    """Two lines a file: the figure, and below it what puts it in proportion."""
    table = plain_table()
    table.add_column("file\n", overflow="fold")
    headers = (f"{score_called(report.rows)}\ninterval", "agree-\nment", "size\nsmaller", "p50 ms\nfaster", "p90 ms\n")
    metered = any(row.energy for row in report.rows)
    for header in (*headers, "memory\n", "dele-\ngated", *(["energy\nmJ"] if metered else [])):
        table.add_column(header, justify="right", no_wrap=True)
    for row, following in zip_longest(report.rows, report.rows[1:]):
        last = following is None or following.export != row.export
        energy = [Text("" if row.error else energies.told(row.energy, unit=""))] if metered else []
        table.add_row(*_cells(row, compare(row, report.rows)), *energy, end_section=last)
    return table


def _methods(measured: Iterable[EnergyUse | None]) -> list[Text]:
    """A line that says how energy was measured, where it was."""
    methods = energies.methods(measured)
    return [Text(f"energy of an image by {methods}", style=QUIET)] if methods else []


def _cells(row: Row, pair: Comparison | None) -> list[Text]:
    name = _two_lines(row.export, f"{row.precision} {row.role}")
    if row.error:
        return [name, Text("failed", style="red"), *(Text("") for _ in range(6))]
    runtime = "" if row.runtime == row.export else f" ({row.runtime})"
    name = _two_lines(row.export + runtime, f"{row.precision} {row.role}")
    latency = row.latency_ms
    return [
        name,
        _two_lines(figures.score(row.score), figures.score_interval(row.score, with_unit=False)),
        Text(figures.percent(row.agreement)),
        _with_factor(figures.size(row.size_bytes), pair.size_factor if pair else None),
        _with_factor(
            figures.milliseconds(latency.p50 if latency else None, unit=""),
            pair.latency_factor if pair else None,
            certain=not (pair and pair.latency_within_noise),
        ),
        Text(figures.milliseconds(latency.p90 if latency else None, unit="")),
        Text(figures.size(row.peak_memory_bytes)),
        Text(figures.whole_percent(row.delegated_share)),
    ]


def _device(device: MeasuredDevice, rows: Sequence[Row]) -> list[RenderableType]:
    """What a device is, and what the files did there."""
    table = plain_table()
    table.add_column(f"on {device.name}\n", overflow="fold")
    metered = any(file.energy for file in device.files)
    for header in (
        f"{score_called(rows)}\nimages",
        "agree-\nment",
        "other\nthan here",
        "p50 ms\nfaster",
        "p90 ms\n",
        "memory\n",
        *(["energy\nmJ"] if metered else []),
    ):
        table.add_column(header, justify="right", no_wrap=True)
    for row in rows:
        if (file := there(device, row)) is None:
            continue
        name = _two_lines(row.export, f"{row.precision} {row.role}")
        told, latency, pair = file.answers, file.latency_ms, latencies_there(device, row, rows)
        if told is None and latency is None:
            table.add_row(name, Text("failed", style="red"), *[""] * 5)
            continue
        others = figures.MISSING if told is None or told.differing is None else str(told.differing)
        table.add_row(
            name,
            _two_lines(figures.score(told.score), str(told.images)) if told else Text(figures.MISSING),
            Text(figures.percent(told.agreement if told else None)),
            Text(others, style="bold red" if told and told.differing else ""),
            _with_factor(
                figures.milliseconds(latency.p50 if latency else None, unit=""),
                pair.factor if pair else None,
                certain=not (pair and pair.within_noise),
            ),
            Text(figures.milliseconds(latency.p90 if latency else None, unit="")),
            Text(figures.size(file.peak_memory_bytes)),
            *([Text(energies.told(file.energy, unit=""))] if metered else []),
        )
    said = [Text(described(device.name, device.facts), style=QUIET)] if device.facts else []
    return [Unsqueezed(table, _NARROWEST), *said, *_methods(file.energy for file in device.files)]


def _two_lines(first: str, second: str) -> Text:
    return Text.assemble(first, "\n", (second, QUIET))


def _with_factor(figure: str, factor: float | None, *, certain: bool = True) -> Text:
    """The figure, and below it the factor against the float file: green for better, yellow for worse."""
    if factor is None:
        return Text(figure)
    style = QUIET if not certain else "green" if factor >= 1 else "yellow"
    return Text.assemble(figure, "\n", (figures.factor(factor) if certain else f"≈{figures.factor(factor)}", style))


def _failure(row: Row) -> Text:
    text = Text.assemble((f"{row.file} failed: ", "red"), row.error or "")
    return text.append(f"\nlog: {row.log}", style=QUIET) if row.log else text


def _gates(gates: Sequence[GateResult]) -> Table:
    table = plain_table()
    table.add_column("gate")
    table.add_column("file", overflow="fold")
    for header in ("figure", "limit"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for gate in gates:
        outcome = Text("passed", style="green") if gate.passed else Text("missed", style="bold red")
        where = f"{gate.file or gate.reason or ''}{f' on {gate.device}' if gate.device else ''}"
        table.add_row(gate.name, Text(where), gate.figure_text, gate.limit_text, outcome)
    return table
