"""`edgeopt why`: finds a file and what its run keeps of it, lets a process look, and says what would mend it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt._version import __version__
from edgeopt.files import storage_errors, write_aside
from edgeopt.json_values import from_text
from edgeopt.plugins.handed import hand_over
from edgeopt.plugins.registry import load_registry
from edgeopt.why.advice import advice
from edgeopt.why.request import WhyRequest
from edgeopt.why.subject import Found, find_subject
from edgeopt.why.table import Why
from edgeopt.why.worker import Looked, WhyJob
from edgeopt.workers.pool import Workers

if TYPE_CHECKING:  # rich is loaded when something is shown
    from rich.console import Console

FOLDER = "why"
"""Where beside a file what was found of it lies."""
JSON, PAGE = "why.json", "why.html"


@dataclass(frozen=True)
class WhyResult:
    """What was found, the folder in which it lies, and the file's run."""

    why: Why
    folder: Path
    found: Found


def run_why(request: WhyRequest, console: Console | None = None) -> WhyResult:
    """Looks where a file errs, and writes `why.json` and `why.html`.

    Nothing is shown without a `console`. Raises `UserError` for a file that cannot be looked at.
    """
    registry = load_registry(request.plugin_files)
    found = find_subject(request.given, registry)
    out = request.out or found.subject.path.parent / FOLDER
    from rich.console import Console  # shown things are loaded only when there is something to show

    from edgeopt.workers.display import Display

    with storage_errors(out), tempfile.TemporaryDirectory(prefix="edgeopt-why-") as aside:
        out.mkdir(parents=True, exist_ok=True)
        with (
            Display(console or Console(quiet=True)) as display,
            Workers(Path(aside) / "jobs", out / "log.txt", display) as workers,
        ):
            subject, answer = workers.folder / "subject.pickle", Path(aside) / "looked.json"
            hand_over(found.subject, subject, registry)
            workers.run(WhyJob(subject, answer, request.images, request.threads), "why", request.threads)
            looked = from_text(Looked, answer.read_text(encoding="utf-8"))
        why = _why(found, looked)
        from edgeopt.why.page import render_page  # matplotlib and jinja2

        write_aside(out / JSON, why.to_json())
        write_aside(out / PAGE, render_page(why))
    return WhyResult(why, out, found)


def _why(found: Found, looked: Looked) -> Why:
    why = Why(
        edgeopt=__version__,
        file=found.row.file,
        run=found.folder.name,
        runtime=found.row.runtime,
        precision=found.row.precision,
        images=looked.images,
        layers=looked.layers,
        outputs=looked.outputs,
        agreement=looked.agreement,
        tap_changes=looked.tap_changes,
        how=looked.how,
        unseen=looked.unseen,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return advice(why, found.report.recipe.resolved)
