"""Two ways to start a worker's process: a Python of its own, or a fork of one that has its imports behind it.

A worker leads a group of processes, with which it is stopped, continued and ended. Where this process has no terminal,
the group stays in its session: the system then ends a group that was stopped when this process dies (a group that
becomes orphaned is sent SIGHUP and SIGCONT), and one that was not sees the end of its standard input.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol

_END_S = 3.0
_LOOK_S = 0.1  # that a thread waits for news while another one may want them too
_LINES, _LINES_BYTES = 2, 64


class Process(Protocol):
    """A process that was started, as `subprocess.Popen` has it."""

    stdin: IO[str] | None
    stdout: IO[str] | None

    @property
    def pid(self) -> int:
        """Its ID, that of its group too. Raises `ProcessLookupError` for one that never began."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, that of a signal negative, once it has ended.

        Raises `subprocess.TimeoutExpired` when that takes more than `timeout` seconds.
        """
        ...


class Launch(Protocol):
    """Starts a worker: a Python module with the file of its job."""

    def __call__(self, module: str, job: Path, *, environment: Mapping[str, str], errors_to: IO[bytes]) -> Process: ...


def spawned(module: str, job: Path, *, environment: Mapping[str, str], errors_to: IO[bytes]) -> Process:
    """Starts a worker as a Python of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", module, str(job)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors_to,
        env=environment,
        text=True,
        start_new_session=has_terminal(),  # Ctrl-C reaches the parent alone, which ends its workers in order
        process_group=_group(),
    )


def _group() -> int | None:
    """The group of a process that is to lead one: 0 for one of its own; a session of its own has one already."""
    return None if has_terminal() else 0


def has_terminal() -> bool:
    """Whether Ctrl-C in a terminal can reach this process, and a worker in its session could wait at that terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def can_fork() -> bool:
    """Whether there can be a nursery: the libraries of macOS do not survive a fork, and Windows has none."""
    return sys.platform == "linux" and hasattr(os, "pidfd_open")


class Nursery:
    """The parent's end of `edgeopt.workers.nursery`: workers begin with `modules` imported.

    A worker is asked for at once, and begins when the imports are done, which see `environment`.
    """

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, log.open("ab") as errors_to:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edgeopt.workers.nursery", str(theirs.fileno()), *modules],
                stdin=subprocess.DEVNULL,
                stdout=errors_to,
                stderr=errors_to,
                env=environment,
                pass_fds=[theirs.fileno()],
                start_new_session=has_terminal(),
                process_group=_group(),
            )

    def start(self, module: str, job: Path, *, environment: Mapping[str, str], errors_to: IO[bytes]) -> Process:
        """Asks for a worker. Raises `ConnectionError` when the nursery has ended."""
        pipes = [os.pipe() for _ in range(3)]
        (stdin, to_stdin), (from_stdout, stdout), (told, tell) = pipes
        told_of = {"module": module, "file": str(job), "environment": dict(environment), "folder": _folder()}
        packet = json.dumps(told_of).encode()
        try:
            socket.send_fds(self._control, [packet], [stdin, stdout, errors_to.fileno(), tell])
        except OSError as error:
            for each in (to_stdin, from_stdout, told):
                os.close(each)
            raise ConnectionError("the nursery has ended") from error
        finally:
            for each in (stdin, stdout, tell):
                os.close(each)
        return _Forked(to_stdin, from_stdout, told)

    @property
    def pid(self) -> int:
        """The ID of the process, and of its group."""
        return self._process.pid

    def end(self) -> None:
        """Ends the process; its forks work on."""
        self._control.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:  # still importing
            self._process.kill()
            self._process.wait()


def _folder() -> str:
    """The working directory; "" where it is gone."""
    try:
        return os.getcwd()  # noqa: PTH109 - as `os.chdir` takes it
    except OSError:
        return ""


def begun(process: Process) -> int | None:
    """The ID of a process; None for one that a nursery has not told of yet."""
    try:
        return process.told_pid() if isinstance(process, _Forked) else process.pid
    except ProcessLookupError:
        return None


class _Forked:
    """A worker that a nursery forked. What is known of it comes in two lines: its process ID and its exit code."""

    def __init__(self, stdin: int, stdout: int, told: int) -> None:
        self.stdin: IO[str] | None = os.fdopen(stdin, "w")
        self.stdout: IO[str] | None = os.fdopen(stdout)
        self._told = os.fdopen(told, "rb", buffering=0)
        self._said = b""
        self._lock = threading.Lock()  # a thread may wait while another one ends the process

    @property
    def pid(self) -> int:
        pid = self._number(0, None)
        if pid is None:
            raise ProcessLookupError("the nursery ended before the worker began")
        return pid

    def told_pid(self) -> int | None:
        """Its ID, if that was told by now."""
        try:
            return self._number(0, 0.0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        code = self._number(1, timeout)
        return -signal.SIGKILL if code is None else code  # the nursery was killed, as was the worker, in all likelihood

    def _number(self, line: int, timeout: float | None) -> int | None:
        """The number in a line; None where the nursery ended without it."""
        until = math.inf if timeout is None else time.monotonic() + timeout
        while len(lines := self._read()) <= line and not self._told.closed:
            if time.monotonic() >= until:
                raise subprocess.TimeoutExpired("worker", timeout or 0.0)
        return int(lines[line]) if len(lines) > line else None

    def _read(self) -> list[bytes]:
        """The lines that have come, after a short wait for more."""
        with self._lock:
            if not self._told.closed and select.select([self._told], [], [], _LOOK_S)[0]:
                said = self._told.read(_LINES_BYTES)
                self._said += said
                if not said or self._said.count(b"\n") == _LINES:
                    self._told.close()
            return self._said.split(b"\n")[:-1]
