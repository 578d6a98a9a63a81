"""The agent of a device, started and spoken to: requests there, messages back, and a sign of life now and then."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from typing import IO

from edgeopt.arrays import Json
from edgeopt.devices.link import Link
from edgeopt.errors import ConnectionLostError, DeviceError, Problem

Message = dict[str, Json]

_ALIVE_S = 10.0
_END_S = 5.0


class AgentRefusedError(DeviceError):
    """What the agent could not do; `kind` says why in a word, and `said` in the words of whoever refused."""

    def __init__(self, problem: Problem, kind: str = "", said: str = "") -> None:
        super().__init__(problem)
        self.kind = kind
        self.said = said


class Connection:
    """A process on the device that answers in lines of JSON."""

    def __init__(self, link: Link, program: Sequence[str], name: str) -> None:
        self._link = link
        self._name = name
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - closed with the connection
        self._lock = threading.Lock()
        command = link.command(program)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,  # Ctrl-C reaches this process alone, which ends the other in order
            )
        except OSError as error:
            self._errors.close()
            raise DeviceError(f"{name}: {command[0]} cannot be started here: {error.strerror}") from error
        self._over = threading.Event()
        threading.Thread(target=self._stay_alive, daemon=True).start()

    def write(self, data: bytes) -> None:
        """Sends bytes as they are."""
        with self._lock, contextlib.suppress(BrokenPipeError, ValueError):  # it died: `read` says so
            stream = self._stream(self._process.stdin)
            stream.write(data)
            stream.flush()

    def ask(self, request: Message) -> None:
        """Sends a request."""
        self.write(json.dumps(request).encode() + b"\n")

    def read(self) -> Message:
        """The next message.

        Raises `ConnectionLostError` when the connection broke, `DeviceError` for whatever else ended it, and
        `AgentRefusedError` for what the agent could not do.
        """
        line = self._stream(self._process.stdout).readline()
        if not line.endswith(b"\n"):
            raise self._ended()
        try:
            message: Message = json.loads(line)
        except ValueError as error:
            hint = "let its shell print nothing when nobody sits at it"
            problem = Problem(f"{self._name}: it answers with {line[:60].decode(errors='replace')!r}", hint)
            raise DeviceError(problem) from error
        if message["event"] == "error":
            problem = Problem(f"{self._name}: {message['message']}")
            raise AgentRefusedError(problem, message["kind"], message["message"])
        return message

    def close(self) -> None:
        """Ends the process here, and by the end of its input the one there."""
        self._over.set()
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._stream(self._process.stdin).close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._stream(self._process.stdout).close()
        self._errors.close()

    def _ended(self) -> DeviceError:
        try:
            code = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            code = -signal.SIGKILL
        self._errors.seek(0)
        said = self._errors.read()
        if code < 0 or self._link.is_lost(code):
            return ConnectionLostError(self._named(self._link.explain(code, said)))
        return DeviceError(self._named(self._link.explain(code, said)))

    def _named(self, problem: Problem) -> Problem:
        return Problem(f"{self._name}: {problem.message}", problem.hint)

    def _stay_alive(self) -> None:
        while not self._over.wait(_ALIVE_S):
            self.ask({"do": "alive"})

    @staticmethod
    def _stream(stream: IO[bytes] | None) -> IO[bytes]:
        assert stream is not None  # both are pipes
        return stream
