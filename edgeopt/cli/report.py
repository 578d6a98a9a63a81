"""`edgeopt report`."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from edgeopt.cli.consoles import stdout
from edgeopt.errors import Problem, UserError
from edgeopt.report import terminal
from edgeopt.report.schema import Report


def show_report(run: Path, *, in_browser: bool) -> None:
    """Prints the report of the run in the folder `run`, and where its page is.

    Raises `UserError` when there is no report.
    """
    folder = run.parent if run.name == "report.json" else run
    try:
        text = (folder / "report.json").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        hint = "name the folder of a finished run, such as runs/NAME"
        raise UserError(Problem(f"{folder}: there is no report.json that can be read", hint)) from error
    page = folder / "report.html"
    terminal.render(Report.from_json(text), stdout(), [page])
    if in_browser:
        webbrowser.open(page.resolve().as_uri())
