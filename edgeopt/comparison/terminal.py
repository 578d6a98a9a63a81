"""A comparison in the terminal: one row a file, in what the recipes differ, then what it means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from edgeopt.comparison.schema import (
    BytesChange,
    Change,
    ComparedRun,
    Difference,
    FileChange,
    Judged,
    LatencyChange,
    RunChange,
    RunComparison,
)
from edgeopt.comparison.sentences import change_text, figure_text, interval_text, outcome_text
from edgeopt.comparison.shown import SAME_MEMORY, SAME_SIZE, bytes_tone, change_tone, kept_value, ratio_text
from edgeopt.report import figures
from edgeopt.report.tables import QUIET, Unsqueezed, bullets, plain_table

_NARROWEST = 100  # letters
_STYLES = {"better": "green", "worse": "yellow", "quiet": QUIET}
_SHOWN_DIFFERENCES = 24


def render(comparison: RunComparison, console: Console) -> None:
    """Prints a comparison, a part for each run that is held against the first."""
    for change, other in zip(comparison.changes, comparison.runs[1:], strict=True):
        for part in _parts(change, comparison.first, other):
            console.print(part, crop=False)
            console.print()


def _parts(change: RunChange, first: ComparedRun, other: ComparedRun) -> Iterator[RenderableType]:
    yield Text.assemble((first.title, "bold"), " → ", (other.title, "bold"))
    if change.files:
        yield Unsqueezed(_files(change.files), _NARROWEST)
    if any(file.devices for file in change.files):
        yield Unsqueezed(_devices(change.files), _NARROWEST)
    if change.recipe or change.versions:
        yield Unsqueezed(_differences([*change.recipe, *change.versions]), _NARROWEST)
    else:
        yield Text("The recipes, versions and plugins of both runs are the same.", style=QUIET)
    if change.gates:
        yield Unsqueezed(_gates(change.gates), _NARROWEST)
    yield bullets(change.verdicts)


def _files(files: Sequence[FileChange]) -> Table:
    """Three lines a file: before, after, and what that is."""
    table = plain_table()
    table.add_column("file\n", overflow="fold")
    is_graded = any(file.accuracy and file.accuracy.paired.graded for file in files)
    counted = "worse,\nbetter" if is_graded else "lost,\ngained"
    headers = (f"{files[0].kind.called}\n", "change\ninterval", counted, "size\n", "p50 ms\n", "memory\n")
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    for file in files:
        table.add_row(*_cells(file), end_section=True)
    return table


def _cells(file: FileChange) -> list[Text]:
    accuracy, latency = file.accuracy, file.latency
    return [
        Text.assemble(file.title, "\n", (str(file.role), QUIET)),
        _arrow(*map(figures.score, (file.score_before, file.score_after))),
        Text.assemble(
            (change_text(accuracy), _STYLES[change_tone(accuracy.verdict)]),
            "\n",
            (interval_text(accuracy), QUIET),
        )
        if accuracy
        else Text("no verdict", style=QUIET),
        Text.assemble(
            f"{accuracy.paired.lost}, {accuracy.paired.gained}",
            "\n",
            (figures.probability(accuracy.paired.p_value), QUIET),
        )
        if accuracy
        else Text(figures.MISSING),
        _bytes(file.size, SAME_SIZE),
        _latency(latency),
        _bytes(file.memory, SAME_MEMORY),
    ]


def _devices(files: Sequence[FileChange]) -> Table:
    """Each file on each device: before, after, and what that is."""
    table = plain_table()
    table.add_column("file\n", overflow="fold")
    table.add_column("device\n", overflow="fold")
    for header in (f"{files[0].kind.called}\nthere", "p50 ms\n"):
        table.add_column(header, justify="right", no_wrap=True)
    for file in files:
        for there in file.devices:
            table.add_row(
                Text.assemble(file.title, "\n", (str(file.role), QUIET)),
                there.device,
                _arrow(*map(figures.score, (there.score_before, there.score_after))),
                _latency(there.latency),
                end_section=True,
            )
    return table


def _arrow(before: str, after: str) -> Text:
    return Text.assemble((before, QUIET), "\n", after)


def _bytes(change: BytesChange | None, noise: float) -> Text:
    if change is None:
        return Text(figures.MISSING)
    text = _arrow(figures.size(change.before), figures.size(change.after))
    return text.append(f"\n{ratio_text(change.ratio)}", style=_STYLES[bytes_tone(change, noise)])


def _latency(change: LatencyChange | None) -> Text:
    if change is None:
        return Text(figures.MISSING)
    text = _arrow(*(figures.milliseconds(each.p50, unit="") for each in (change.before, change.after)))
    if change.ratio is None or change.verdict is None:
        return text.append("\nno verdict", style=QUIET)
    about = "" if change.verdict in (Change.BETTER, Change.WORSE) else "≈"
    return text.append(f"\n{about}{ratio_text(change.ratio)}", style=_STYLES[change_tone(change.verdict)])


def _differences(differences: Sequence[Difference]) -> Table:
    table = plain_table()
    table.add_column("differs", overflow="fold")
    for header in ("before", "after"):
        table.add_column(header, overflow="fold")
    table.add_column("written in", overflow="fold", style=QUIET)
    for each in differences[:_SHOWN_DIFFERENCES]:
        places = dict.fromkeys(place for place in (each.before_at, each.after_at) if place)
        table.add_row(each.key, kept_value(each.before), kept_value(each.after), "\n".join(places))
    if len(differences) > _SHOWN_DIFFERENCES:
        table.add_row(Text(f"and {len(differences) - _SHOWN_DIFFERENCES} more", style=QUIET), "", "", "")
    return table


def _gates(gates: Sequence[Judged]) -> Table:
    table = plain_table()
    table.add_column("gate")
    table.add_column("file", overflow="fold")
    for header in ("figure", "allowed"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    styles = {True: "green", False: "bold red", None: QUIET}
    for gate in gates:
        outcome = Text(outcome_text(gate), style=styles[gate.passed])
        table.add_row(gate.name, gate.file, figure_text(gate, gate.figure), figure_text(gate, gate.limit), outcome)
    return table
