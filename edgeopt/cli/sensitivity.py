"""`edgeopt sensitivity`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeopt.cli.consoles import stderr, stdout
from edgeopt.errors import Problem, UserError, did_you_mean
from edgeopt.sensitivity import page as shown
from edgeopt.sensitivity.run import SensitivityRequest, SensitivityResult, measure_sensitivity
from edgeopt.sensitivity.scan_settings import ScanSettings
from edgeopt.sensitivity.table import Measure, Scan

_STYLES = {"hit": "green", "miss": "red", "skipped": "dim"}


def show_sensitivity(
    recipe: Path,
    *,
    of: str,
    levels: str | None,
    threshold: float,
    measure: str,
    complete: bool,
    certainty: float,
    workers: int | None,
    overrides: Iterable[str],
    smoke: bool,
    out: Path,
    plugin_files: Iterable[Path],
) -> None:
    """Scans the float model of a recipe and prints a table of layers and levels.

    Raises `UserError` for values that do not fit, and what the scan raises.
    """
    problems = []
    if measure not in list(Measure):
        problems.append(Problem(f"--measure {measure}: there is no such measure", did_you_mean(measure, Measure)))
    if not 0 < certainty <= 1:
        problems.append(Problem(f"--certainty {certainty:g}: give a probability above 0, at most 1"))
    if threshold < 0:
        problems.append(Problem(f"--threshold {threshold:g}: give 0 or more", "0.01 is one point of accuracy"))
    if workers is not None and workers < 1:
        problems.append(Problem(f"--workers {workers}: give 1 or more"))
    if problems:
        raise UserError(*problems)
    settings = ScanSettings(
        measure=Measure(measure),
        threshold=threshold,
        error=round(1 - certainty, 12),
        stop_early=not complete,
        workers=workers or 0,
    )
    result = measure_sensitivity(
        recipe,
        SensitivityRequest(of, _numbers(levels or ""), (), settings),
        overrides=overrides,
        smoke=smoke,
        out=out,
        plugin_files=plugin_files,
        console=stderr(),
    )
    _show(result, stdout())


def _numbers(text: str) -> tuple[float, ...]:
    """Numbers apart by spaces or commas."""
    numbers = []
    for word in text.replace(",", " ").split():
        try:
            numbers.append(float(word))
        except ValueError:
            raise UserError(Problem(f"--levels: {word!r} is not a number", 'give them as in "8 6 4"')) from None
    return tuple(numbers)


def _show(result: SensitivityResult, console: Console) -> None:
    scan = result.scan
    console.print(_table(scan), crop=False)
    console.print()
    for sentence in _sentences(scan):
        console.print(Text(sentence), soft_wrap=True)
    for path in result.files:
        console.print(Text(str(path), style="cyan"), soft_wrap=True)


def _table(scan: Scan) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", show_edge=False)
    table.add_column("layer", overflow="fold")
    for level in scan.levels:
        table.add_column(f"{level:g}", justify="right", no_wrap=True)
    table.add_column("recommended", justify="right", no_wrap=True)
    for layer in shown.shown_layers(scan):
        cells = [Text(cell.text, style=_STYLES[cell.tone]) for cell in layer.cells]
        table.add_row(Text(layer.name), *cells, Text(layer.recommended, style="bold"))
    return table


def _sentences(scan: Scan) -> Iterable[str]:
    text = f"{scan.title}, on {scan.images} validation images; threshold {shown.threshold_text(scan)}"
    yield text.capitalize()
    yield shown.summary(scan)
    if (saved := shown.savings(scan)) > 0.005:
        yield f"{100 * saved:.0f} % of all runs were not needed: verdicts were certain. --complete runs them all."
        yield "≥ and ≤ bound such a figure; – is a level that was left out, because a harsher one passes."
