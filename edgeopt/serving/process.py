"""The process of one file as the server sees it, without ever blocking: start it, ask it, follow its events, end it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import deque
from pathlib import Path

from edgeopt.errors import EdgeoptError
from edgeopt.serving.job import HEADER, Wanted
from edgeopt.workers.pool import worker_environment
from edgeopt.workers.worker import Event, user_error

_MODULE = "edgeopt.serving.answering"
_LINE_BYTES = 1 << 26  # an answer may hold a mask
_PIECE_BYTES = 1 << 20
_KEPT_LINES = 40  # of what libraries print
_END_S = 2.0


class OpenError(EdgeoptError):
    """A file's process did not come to answer."""


class AnsweringProcess:
    """A living process of `answering`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin and process.stdout and process.stderr  # all are pipes
        self._process = process
        self._stdin, self._stdout = process.stdin, process.stdout
        self._said: deque[str] = deque(maxlen=_KEPT_LINES)
        self._failure: Event | None = None
        self._listening = asyncio.create_task(self._listen(process.stderr))
        self.was_stopped = ""

    @classmethod
    async def start(cls, job: Path, threads: int) -> AnsweringProcess:
        """Starts a process for `job`, a file that `hand_over` wrote."""
        command = [sys.executable, "-m", _MODULE, str(job)]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LINE_BYTES,
            env=worker_environment(threads),
            start_new_session=True,  # Ctrl-C reaches the server alone
        )
        return cls(process)

    async def opened(self, limit_s: float) -> float:
        """Waits until the file is open; returns how many milliseconds that took.

        Raises `OpenError` when the process ends instead, or needs more than `limit_s`.
        """
        try:
            async with asyncio.timeout(limit_s):
                event = await self.event()
        except TimeoutError:
            self.stop(f"it was not open after {limit_s:g} s")
            event = None
        if event is None:
            raise OpenError(await self.death())
        return float(event["open_ms"])

    async def ask(self, number: int, image: bytes, wanted: Wanted) -> None:
        """Sends an image; one to a process that is dying is lost, which `event` tells."""
        with contextlib.suppress(ConnectionError):
            self._stdin.write(HEADER.pack(number, len(image), wanted.is_prepared, wanted.keep, wanted.reference))
            self._stdin.write(image)
            await self._stdin.drain()

    async def event(self) -> Event | None:
        """The next event; None when the process has ended."""
        while line := await self._stdout.readline():
            event: Event = json.loads(line)
            if event["event"] not in ("error", "bug"):
                return event
            self._failure = event
        return None

    async def death(self) -> str:
        """Why the process ended, in words. Waits until it has."""
        code = await self._process.wait()
        await self._listening
        if self.was_stopped:
            return self.was_stopped
        if self._failure and self._failure["event"] == "error":
            return "; ".join(problem.message for problem in user_error(self._failure).problems)
        if self._failure:
            return str(self._failure["message"])
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        said = f"; it last said: {self._said[-1]}" if self._said else ""
        return f"its process {how}{said}"

    def stop(self, reason: str) -> None:
        """Ends the process at once, whatever it does; `death` says why."""
        self.was_stopped = self.was_stopped or reason
        self._signal(signal.SIGKILL)

    async def end(self) -> None:
        """Ends the process, first kindly, and waits for it."""
        self._stdin.close()
        try:
            async with asyncio.timeout(_END_S):
                await self._process.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self._process.wait()
        self._listening.cancel()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    async def _listen(self, stream: asyncio.StreamReader) -> None:
        """Keeps the end of what libraries print, so that a death can be explained."""
        while piece := await stream.read(_PIECE_BYTES):
            lines = piece.decode("utf-8", "replace").splitlines()
            self._said.extend(line.strip()[:300] for line in lines[-_KEPT_LINES:] if line.strip())
