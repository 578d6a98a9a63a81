"""`edgeopt why`."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text

from edgeopt.cli.consoles import stderr, stdout
from edgeopt.files import write_aside
from edgeopt.why import terminal
from edgeopt.why.request import WhyRequest
from edgeopt.why.run import JSON, PAGE, WhyResult, run_why

_TRIED = "tried.html"


def show_why(request: WhyRequest, *, try_it: bool) -> None:
    """Looks where a file errs, prints the worst layers, and says where the page lies.

    With `try_it`, the lines that may mend it are run and compared. Raises `UserError` for a file that cannot be
    looked at.
    """
    result = run_why(request, stderr())
    terminal.render(result.why, stdout(), _written(result))
    if try_it:
        _try(request, result)


def _try(request: WhyRequest, result: WhyResult) -> None:
    from edgeopt.comparison.page import render_page  # jinja2, and Pillow for images
    from edgeopt.comparison.terminal import render
    from edgeopt.why.trial import try_advice

    trial = try_advice(request, result, stderr())
    console, page = stdout(), result.folder / _TRIED
    write_aside(page, render_page(trial.comparison, trial.runs))
    for each in trial.advice:
        console.print(Text(f"tried: {each.line}", style="bold"), soft_wrap=True)
    render(trial.comparison, console)
    terminal.render_trial(result.why, trial.after.why, console, [page, *_written(trial.after)])


def _written(result: WhyResult) -> list[Path]:
    return [result.folder / name for name in (PAGE, JSON)]
