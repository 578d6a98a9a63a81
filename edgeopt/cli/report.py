"""`edgeopt report`."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from edgeopt.cli.consoles import stdout
from edgeopt.report import terminal
from edgeopt.report.reading import FILE, read_report


def show_report(run: Path, *, in_browser: bool) -> None:
    """Prints the report of the run in the folder `run`, and where its page is.

    Raises `UserError` when there is no report.
    """
    folder = run.parent if run.name == FILE else run
    page = folder / "report.html"
    terminal.render(read_report(folder), stdout(), [page])
    if in_browser:
        webbrowser.open(page.resolve().as_uri())
