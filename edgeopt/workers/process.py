"""What every worker process has: events to its parent, and the end of its work when the parent dies.

A worker says what happens as JSON lines on its standard output; what libraries print goes to standard error, which the
parent writes to the run's log. It ends when its standard input ends, so that no worker outlives a killed run.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import logging
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, NoReturn

from edgeopt.arrays import Json
from edgeopt.errors import PausedError, PluginBugError, UserError
from edgeopt.files import storage_errors
from edgeopt.progress import Bar
from edgeopt.workers.machine_faults import machine_fault

_INTERVAL_SECONDS = 0.1


class Events:
    """Writes events, one JSON object a line; several threads may."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, event: dict[str, Json]) -> None:
        """Writes one event at once."""
        with self._lock:
            self._stream.write(json.dumps(event) + "\n")
            self._stream.flush()

    @contextmanager
    def bar(self, label: str, total: float) -> Iterator[Bar]:
        """A progress bar that the parent draws."""
        self.send({"event": "bar", "label": label, "total": total})
        bar = _EventBar(self)
        yield bar
        bar.flush()
        self.send({"event": "bar-end"})


class _EventBar:
    """Adds up steps and sends them a few times a second."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._steps = 0.0
        self._text: str | None = None
        self._sent = 0.0

    def advance(self, steps: float = 1) -> None:
        self._steps += steps
        if time.monotonic() - self._sent > _INTERVAL_SECONDS:
            self.flush()

    def say(self, text: str) -> None:
        self._text = text

    def flush(self) -> None:
        """Sends what has not been sent."""
        self._events.send({"event": "advance", "steps": self._steps, "text": self._text})
        self._steps, self._sent = 0.0, time.monotonic()


def collect_seldom() -> None:
    """Lets Python look for garbage less often than it does by itself.

    Graphs of programs are millions of small objects that live on. An export otherwise spends a tenth of its time in
    looking through them, and holds 1 % more memory this way. mypy does the same for its own graphs.
    """
    gc.set_threshold(50_000, 20, 20)


def work(main: Callable[[Events], None]) -> int:
    """Runs a worker's `main`; tells the parent what went wrong, and returns the exit code."""
    collect_seldom()
    events = Events(_own_output())
    _log_on_error_output()
    told_in = Path(sys.argv[-1]).parent
    try:
        with storage_errors(told_in, inside=told_in):  # the disk with the job itself may be gone
            main(events)
    except UserError as error:
        return _tell(events, error)
    except PausedError as paused:
        events.send({"event": "paused", "epochs": paused.epochs, "score": paused.score})
        return 0
    except KeyboardInterrupt:
        return 130
    except BaseException as error:
        _log_traceback()
        if fault := machine_fault(error):
            return _tell(events, fault)
        in_plugin = isinstance(error, PluginBugError)
        message = str(error) if in_plugin else f"{type(error).__name__}: {error}"
        events.send({"event": "bug", "message": message, "in_plugin": in_plugin})
        return 1
    return 0


def _tell(events: Events, error: UserError) -> int:
    """Tells the parent of an error that is the user's to mend; returns the exit code."""
    events.send(error_event(error))
    return int(error.exit_code)


def _log_traceback() -> None:
    with contextlib.suppress(OSError):  # the disk of the log may be full
        traceback.print_exc()


def error_event(error: UserError) -> dict[str, Json]:
    """What is told of a user's mistake, with all its problems."""
    problems = [asdict(problem) for problem in error.problems]
    return {"event": "error", "type": type(error).__name__, "problems": problems}


def leave(code: int) -> NoReturn:
    """Ends this process at once, after what libraries want done at its end.

    Python itself would first take every module apart: half a second after torch was imported, and in a fork a copy of
    all the memory that it shares. `multiprocessing` ends its processes in the same way.
    """
    with contextlib.suppress(Exception):
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - waits for threads, as Python's end does
        atexit._run_exitfuncs()  # noqa: SLF001 - as `multiprocessing` calls it
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # nobody may be there to read it
            stream.flush()
    os._exit(code)


def _own_output() -> IO[str]:
    """A stream to the parent that libraries cannot write to: they get standard error instead."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return stream


def _log_on_error_output() -> None:
    """Lets edgeopt's own loggers, and what they take from libraries, show in the run's log."""
    logger = logging.getLogger("edgeopt")
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler(sys.stderr))
    logger.setLevel(logging.INFO)
    logger.propagate = False


def requests_of_parent() -> Iterator[str]:
    """The lines that the parent sends. Ends this process when standard input ends, as `die_with_parent` does."""
    lines: queue.Queue[str] = queue.Queue()

    def watch() -> None:
        rest = b""
        while piece := os.read(0, 1024):  # not sys.stdin, see `die_with_parent`
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                lines.put(line.decode())
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    return iter(lines.get, None)


def die_with_parent(leave: Callable[[int], None] = os._exit) -> None:
    """Ends this process when its standard input ends, which it does when the parent dies, however it dies."""

    def watch() -> None:
        while os.read(0, 1024):  # not sys.stdin, whose lock a thread may not hold when Python ends
            pass
        leave(1)

    threading.Thread(target=watch, daemon=True).start()
