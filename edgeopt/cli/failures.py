"""The only place that catches errors and exits.

A mistake of the user is told with its place and a hint, a bug with where its traceback was written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.text import Text

    from edgeopt.errors import Problem


GOES_ON = "the same command goes on from the last finished stage"
"""What a command that keeps finished stages says when it is interrupted."""
NOTHING_KEPT = "nothing was written, and nothing is kept"
"""What a command that writes only at its end says when it is interrupted."""


@contextmanager
def failures_shown(interrupted: str = "") -> Iterator[None]:
    """Ends the command with a message on stderr and the exit code of what went wrong, if anything does.

    `interrupted` says what becomes of a command that Ctrl-C ends.
    """
    try:
        with _mistakes_shown():  # within, as Ctrl-C may come while it imports
            yield
    except KeyboardInterrupt:
        from edgeopt.errors import ExitCode  # not for --help

        _say(f"interrupted; {interrupted}" if interrupted else "interrupted")
        raise typer.Exit(ExitCode.INTERRUPTED) from None


@contextmanager
def _mistakes_shown() -> Iterator[None]:
    from edgeopt.errors import (  # not for --help
        ExitCode,
        GateError,
        PluginBugError,
        Problem,
        SilenceError,
        UserError,
        WorkerError,
        first_line,
    )

    try:
        with _machine_faults():
            yield
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise  # typer's own ways to end, and `edgeopt ... | head`
    except UserError as error:
        _say(*map(_problem_text, error.problems))
        if len(error.problems) > 1:
            _say(f"{len(error.problems)} problems")
        raise typer.Exit(error.exit_code) from None
    except GateError as error:
        _say(*error.messages)
        raise typer.Exit(error.exit_code) from None
    except SilenceError as error:
        hint = f"what it said is in {error.log}; a file that needs longer gets it by measure.timeout_s"
        _say(_problem_text(Problem(str(error), hint)))
        raise typer.Exit(error.exit_code) from None
    except Exception as error:  # a bug, here or in a plugin, must not end as a screen of traceback
        log = (isinstance(error, WorkerError) and error.log) or _write_traceback(error)
        in_plugin = isinstance(error, PluginBugError) or (isinstance(error, WorkerError) and error.in_plugin)
        whose = "a bug of a plugin" if in_plugin else f"a bug: {type(error).__name__}"
        who = "plugin" if in_plugin else "project"
        _say(
            f"this is {whose}: {first_line(error)}",
            f"    the whole story is in {log}",
            f"    please report it, with that file and the recipe, to the {who}'s authors",
        )
        raise typer.Exit(ExitCode.BUG) from None


@contextmanager
def _machine_faults() -> Iterator[None]:
    """A full disk or a lack of memory is nobody's bug, wherever it is met."""
    try:
        yield
    except Exception as error:
        from edgeopt.workers.machine_faults import machine_fault  # not for --help

        if (fault := machine_fault(error)) is None:
            raise
        raise fault from error


def _problem_text(problem: Problem) -> Text:
    """`file:line: message`, and the hint on a line of its own."""
    from rich.text import Text  # only when there is something to tell

    text = Text()
    text.append(f"{problem.location or 'error'}: ", style="bold" if problem.location else "bold red")
    text.append(problem.message)
    if problem.hint:
        text.append(f"\n    {problem.hint}", style="cyan")
    return text


def _say(*lines: Text | str) -> None:
    from edgeopt.cli.consoles import stderr  # rich, only when there is something to tell

    console = stderr()
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)  # not wrapped, so that editors can follow file:line


def _write_traceback(error: Exception) -> Path:
    """A file with the traceback and the command line."""
    import sys  # a bug is rare, and --help need not wait for these
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="edgeopt-bug-", suffix=".log", delete=False, encoding="utf-8") as file:
        file.write(f"command: {sys.argv}\npython: {sys.version}\n\n")
        file.writelines(traceback.format_exception(error))
    return Path(file.name)
