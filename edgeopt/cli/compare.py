"""`edgeopt compare`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.text import Text

from edgeopt.cli.consoles import stderr, stdout
from edgeopt.comparison.compare import compare_runs
from edgeopt.comparison.gate import primary_score, read_limits
from edgeopt.comparison.runs import ReadRun, read_runs
from edgeopt.comparison.schema import Limits
from edgeopt.comparison.sentences import gate_message
from edgeopt.comparison.terminal import render
from edgeopt.errors import GateError, Problem, UserError
from edgeopt.files import write_aside


def show_comparison(
    folders: Sequence[Path],
    *,
    html: Path | None,
    json: Path | None,
    gate: bool,
    allow: Iterable[str],
    measure_together: bool,
    plugin_files: Sequence[Path],
) -> None:
    """Compares runs, prints what was found, and writes it where that is asked for.

    Raises `UserError` with everything that is wrong with what was given, and `GateError` for a regression.
    """
    runs, limits = _checked(folders, html, json, allow, plugin_files, gate=gate)
    comparison = compare_runs(
        runs, limits=limits, measure_together=measure_together, plugin_files=plugin_files, console=stderr()
    )
    console = stdout()
    render(comparison, console)
    if json is not None:
        write_aside(json, comparison.to_json())
    if html is not None:
        from edgeopt.comparison.page import render_page  # jinja2, and Pillow for images

        write_aside(html, render_page(comparison, runs))
    for file in filter(None, (html, json)):
        console.print(Text(str(file), style="cyan"), soft_wrap=True)
    if comparison.missed:
        raise GateError(gate_message(change.run, missed) for change, missed in comparison.missed)


def _checked(
    folders: Sequence[Path],
    html: Path | None,
    json: Path | None,
    allow: Iterable[str],
    plugin_files: Sequence[Path],
    *,
    gate: bool,
) -> tuple[tuple[ReadRun, ...], Limits | None]:
    """The runs, and the limits of the gate if it is asked for.

    Raises `UserError` with everything that is wrong with the command line and the runs.
    """
    problems: list[Problem] = []
    runs: tuple[ReadRun, ...] = ()
    limits = None
    allowed = tuple(allow)
    if allowed and not gate:
        problems.append(Problem("--allow says what --gate allows, and --gate is not given", "add --gate"))
    for option, file in (("--html", html), ("--json", json)):
        if file is not None and file.is_dir():
            problems.append(Problem(f"{option} {file} is a folder", "give the name of a file"))
    if html is not None and json is not None and html.resolve() == json.resolve():
        problems.append(Problem(f"--html and --json both name {html}", "give two files"))
    try:
        runs = read_runs(folders)
    except UserError as error:
        problems += error.problems
    try:
        limits = read_limits(allowed, primary_score(runs, allowed, plugin_files))
    except UserError as error:
        problems += error.problems
    if problems:
        raise UserError(*problems)
    return runs, limits if gate else None
