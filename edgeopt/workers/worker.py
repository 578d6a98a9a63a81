"""One worker process as its parent sees it: its events, its silence, its end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgeopt import errors
from edgeopt.arrays import Json
from edgeopt.errors import (
    Location,
    PausedError,
    Problem,
    ResourceError,
    SilenceError,
    UserError,
    WorkerDiedError,
    WorkerError,
)
from edgeopt.workers.launch import Process, begun
from edgeopt.workers.machine_faults import killed, speaks_of_memory, without_memory

Event = dict[str, Json]

_LOOKS = 20  # at a worker, in the time that it may be silent
_LAST_BYTES = 4096  # of a log, in which a process that died may have said why


@dataclass(frozen=True)
class Log:
    """A file that takes what processes print: one of them from byte `begin` on, beside others."""

    file: Path
    begin: int = 0

    def __str__(self) -> str:
        return str(self.file)

    def last_words(self) -> str:
        """The end of it, as far as it is of the process; "" where it cannot be read."""
        try:
            with self.file.open("rb") as file:
                file.seek(max(self.begin, file.seek(0, os.SEEK_END) - _LAST_BYTES))
                return file.read(_LAST_BYTES).decode("utf-8", "replace")
        except OSError:
            return ""


class _Moving:
    """For how long a process was not stopped."""

    def __init__(self) -> None:
        self._stopped_at: float | None = None
        self._stopped_s = 0.0

    def is_stopped(self, now: bool) -> None:
        """The process was stopped just now, or goes on."""
        if now and self._stopped_at is None:
            self._stopped_at = time.monotonic()
        elif not now and self._stopped_at is not None:
            self._stopped_s += time.monotonic() - self._stopped_at
            self._stopped_at = None

    def seconds(self) -> float:
        """A clock that stands still while the process does, s."""
        return (self._stopped_at or time.monotonic()) - self._stopped_s


class Worker:
    """One process, whose standard error goes to the log; its events go to `listener`."""

    def __init__(self, process: Process, label: str, log: Log, listener: Callable[[Event], None]) -> None:
        self.label = label
        self._log = log
        self._listener = listener
        self._failure: Event | None = None
        self._process = process
        self._moving = _Moving()

    def has_begun(self) -> bool:
        """Whether there is a process. Waits until a nursery has forked it, or has ended without."""
        try:
            return self._process.pid > 0
        except ProcessLookupError:
            return False

    def signal(self, number: signal.Signals) -> bool:
        """Stops the process and all that it started where they are, or lets them go on. False where it has not begun.

        While it is stopped, nobody's patience with it runs out.
        """
        pid = begun(self._process)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)
            self._moving.is_stopped(number == signal.SIGSTOP)
        return pid is not None

    def ask(self, request: str) -> None:
        """Sends one line to the worker."""
        stream = self._stream(self._process.stdin)
        with contextlib.suppress(BrokenPipeError):  # it died: `event` says so
            stream.write(request + "\n")
            stream.flush()

    def event(self, limit_s: float | None = None) -> Event:
        """The next event. Raises what the worker raised, or `WorkerError` when it died, or has said nothing for
        `limit_s` in which it was not stopped: it is ended then.
        """
        if limit_s is None:
            return self._next()
        has_come, is_late = threading.Event(), threading.Event()

        def watch() -> None:
            looks = 0  # counted, so that time for which this process itself was stopped counts as one
            while looks < _LOOKS:
                before_s = self._moving.seconds()
                if has_come.wait(limit_s / _LOOKS):
                    return
                looks += self._moving.seconds() > before_s
            is_late.set()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

        threading.Thread(target=watch, daemon=True).start()
        try:
            return self._next()
        except (WorkerError, ResourceError) as error:
            if not is_late.is_set():
                raise
            message = f"{self.label}: no sign of life for {limit_s:g} s, so it was ended"
            raise SilenceError(message, str(self._log)) from error
        finally:
            has_come.set()

    def _next(self) -> Event:
        line = self._stream(self._process.stdout).readline()
        if line:
            event: Event = json.loads(line)
            if event["event"] in ("error", "bug", "paused"):
                self._failure = event
                return self._next()
            return event
        self._raise_failure(self._process.wait())
        return {"event": "end"}

    def wait(self, limit_s: float | None = None) -> None:
        """Passes events on until the worker ends; raises as `event` does."""
        while (event := self.event(limit_s))["event"] != "end":
            self._listener(event)
        self._close()

    def end(self) -> None:
        """Ends the process, first kindly, and waits for it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
            os.killpg(self._process.pid, signal.SIGCONT)  # one that was stopped ends, too
        try:
            self._process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._close()

    def _raise_failure(self, code: int) -> None:
        if code == 0 and self._failure is None:
            return
        self._close()
        if self._failure and self._failure["event"] == "error":
            raise user_error(self._failure)
        if self._failure and self._failure["event"] == "paused":
            raise PausedError(self._failure["epochs"], self._failure["score"])
        if self._failure:
            in_plugin = bool(self._failure["in_plugin"])
            raise WorkerError(f"{self.label}: {self._failure['message']}", str(self._log), in_plugin=in_plugin)
        if code == -signal.SIGKILL:
            raise killed(self.label, self._log)
        if speaks_of_memory(self._log.last_words()):
            raise without_memory(self.label, self._log)
        reason = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        raise WorkerDiedError(f"{self.label}: the process {reason}", str(self._log))

    def _close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()

    @staticmethod
    def _stream(stream: IO[str] | None) -> IO[str]:
        assert stream is not None  # both are pipes
        return stream


def user_error(event: Event) -> UserError:
    """The error that a worker met, as `edgeopt.workers.process.error_event` told it, made again in this process."""
    kind = getattr(errors, event["type"], UserError)
    problems = [
        Problem(each["message"], each["hint"], Location(**each["location"]) if each["location"] else None)
        for each in event["problems"]
    ]
    return kind(*problems) if isinstance(kind, type) and issubclass(kind, UserError) else UserError(*problems)
