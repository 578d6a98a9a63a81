"""Processes that a session starts. All of them end with it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from edgeopt.devices.agent.messages import Message


class FileFailedError(Exception):
    """A file that was not opened, crashed, or gave no sign of life."""


class Processes:
    """The processes of a session, and the log that their standard error goes to."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self._alive: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._closed = False

    def start(self, command: Sequence[str], settings: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Starts a command with pipes to and from it, in a group of processes of its own."""
        with self._lock, self.log.open("ab") as log:
            if self._closed:
                raise SystemExit(1)
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | (settings or {}),
                text=True,
                start_new_session=True,
            )
            self._alive.add(process)
        return process

    def done(self, process: subprocess.Popen[str]) -> int:
        """Ends a process, if it has not ended, with all that it started; its exit code."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        for stream in (process.stdin, process.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()
        with self._lock:
            self._alive.discard(process)
        return code

    def end(self) -> None:
        """Ends all of them; none can be started any more."""
        with self._lock:
            self._closed = True
            alive = list(self._alive)
        for process in alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)


class Child:
    """The process of one file, see `child`."""

    def __init__(self, processes: Processes, command: Sequence[str], task: Message, threads: int, cache: Path) -> None:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        self._processes = processes
        kept_in = {"XDG_CACHE_HOME": str(cache)}  # what runtimes leave behind
        settings = {**dict.fromkeys(names, str(threads)), **kept_in}
        self._process = processes.start(command, settings)
        self.ask(json.dumps(task))

    def ask(self, line: str) -> None:
        """Sends a line."""
        stream = self._process.stdin
        assert stream is not None
        with contextlib.suppress(BrokenPipeError):  # it died: `event` says so
            stream.write(line + "\n")
            stream.flush()

    def event(self, limit_s: float) -> Message | None:
        """The next message, None at its end. Raises `FileFailedError` for an error, a crash, or silence."""
        late = threading.Event()

        def stop() -> None:
            late.set()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

        timer = threading.Timer(limit_s, stop)
        timer.daemon = True
        timer.start()
        try:
            line = _stream(self._process.stdout).readline()
        finally:
            timer.cancel()
        if late.is_set():
            raise FileFailedError(f"no sign of life for {limit_s:g} s, so it was ended")
        if line:
            message: Message = json.loads(line)
            if message["event"] == "error" and message["full"]:
                raise OSError(errno.ENOSPC, message["message"])  # of the device, and no file's fault
            if message["event"] == "error":
                raise FileFailedError(message["message"])
            return message
        code = self._process.wait()
        if code:
            reason = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            raise FileFailedError(f"the process {reason}")
        return None

    def end(self) -> None:
        """Ends the process, whatever it does."""
        self._processes.done(self._process)


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None  # both are pipes
    return stream
