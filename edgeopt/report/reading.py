"""The report in the folder of a finished run."""

from __future__ import annotations

from pathlib import Path

from edgeopt.errors import Location, Problem, UserError
from edgeopt.files import where_looked
from edgeopt.report.schema import Report

FILE = "report.json"


def read_report(folder: Path) -> Report:
    """The report of the run in `folder`. Raises `UserError` when there is none, or none that this version reads."""
    file = folder / FILE
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        hint = "name the folder of a finished run, such as runs/NAME"
        message = f"{folder}: there is no {FILE} that can be read{where_looked(folder)}"
        raise UserError(Problem(message, hint)) from error
    try:
        return Report.from_json(text)
    except UserError as error:
        raise error.at(lambda *_: Location(str(file))) from error
