"""Requests take turns at a file, whose process is started again when it dies.

Two images are with the process at once: one that the file works on, and one that is decoded meanwhile. When it dies
with one, that one is to blame, and fails. When it dies with two, each is tried again alone.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from edgeopt.arrays import Json
from edgeopt.serving.job import Wanted
from edgeopt.serving.limits import Limits
from edgeopt.serving.process import AnsweringProcess, OpenError
from edgeopt.serving.values import FileState, RefusalError
from edgeopt.workers.worker import Event

_AT_ONCE = 2
_WATCH_SHARE = 0.1  # of the time that an answer may take, between two looks
_FIRST_PAUSE_S = 0.5


@dataclass(eq=False)
class _Request:
    """An image that waits for its answer. `sent` is when the process got it, on the monotonic clock."""

    number: int
    image: bytes
    wanted: Wanted
    answer: asyncio.Future[Event]
    asked: float
    sent: float = 0.0
    expiry: asyncio.TimerHandle | None = None
    is_alone: bool = False


@dataclass(frozen=True)
class Answered:
    """What a file's process answered: milliseconds, those of the queue, whether it answered as what it was compared
    with, and either `top`, likeliest classes with their shares, or what it `found`, see `findings`.
    """

    top: tuple[tuple[str, float], ...]
    found: dict[str, Json] | None
    alike: bool | None
    decode_ms: float
    preprocessing_ms: float
    file_ms: float
    queue_ms: float


@dataclass(eq=False)
class Turns:
    """The queue of one file. `start` starts a process for it, `tell` hears of each that opens or dies, in words."""

    start: Callable[[], Awaitable[AnsweringProcess]]
    limits: Limits
    tell: Callable[[str], None]
    state: FileState = FileState.OPENING
    reason: str | None = None
    restarts: int = 0
    first: asyncio.Event = field(default_factory=asyncio.Event)  # set when the file was opened, or could not be
    _waiting: deque[_Request] = field(default_factory=deque)
    _with_process: dict[int, _Request] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _number: int = 0
    _answers: int = 0
    _answered: float = 0.0  # when the latest answer came, on the monotonic clock
    _mean_s: float = 0.05  # of the latest answers
    _again_at: float = 0.0

    @property
    def length(self) -> int:
        """How many requests wait for their turn."""
        return len(self._waiting)

    async def answer(self, image: bytes, wanted: Wanted) -> Answered:
        """What the file takes an image for.

        Raises `RefusalError`: 413 and 415 for the image, 502 for a file that failed on it, 503 for one that has no
        time or does not open, 504 for one that does not answer.
        """
        if self.state is FileState.FAILED:
            raise self._closed()
        if len(self._waiting) >= self.limits.queue_length:
            raise RefusalError(503, "too many wait for this file", "try again", self._patience())
        loop = asyncio.get_running_loop()
        self._number += 1
        request = _Request(self._number, image, wanted, loop.create_future(), time.monotonic())
        request.expiry = loop.call_later(self.limits.queue_s, self._expire, request)
        self._waiting.append(request)
        self._changed.set()
        event = await request.answer
        if event["event"] == "refusal":
            raise RefusalError(event["status"], event["error"], event["hint"])
        return Answered(
            top=tuple((label, share) for label, share in event["top"]),
            found=event["found"],
            alike=event["alike"],
            decode_ms=event["decode_ms"],
            preprocessing_ms=event["preprocessing_ms"],
            file_ms=event["file_ms"],
            queue_ms=(request.sent - request.asked) * 1e3,
        )

    async def run(self) -> None:
        """Keeps a process at work until this task is cancelled."""
        failures = 0
        while True:
            try:
                process = await self._open()
            except OpenError as error:
                failures += 1
                self._fail(str(error), self._pause_s(failures))
                await asyncio.sleep(self._pause_s(failures))
                continue
            answers = self._answers
            await self._work(process)
            self.restarts += 1
            self.state = FileState.OPENING
            failures = failures + 1 if self._answers == answers else 0
            if failures:
                await asyncio.sleep(self._pause_s(failures))

    def _pause_s(self, failures: int) -> float:
        return float(min(self.limits.again_s, _FIRST_PAUSE_S * 2 ** (min(failures, 20) - 1)))

    async def _open(self) -> AnsweringProcess:
        """A process that answers. Raises `OpenError`."""
        try:
            process = await self.start()
        except OSError as error:
            raise OpenError(f"no process can be started: {error}") from error
        try:
            opened_ms = await process.opened(self.limits.open_s)
        except BaseException:
            await process.end()
            raise
        self.state, self.reason = FileState.READY, None
        self.tell(f"open after {opened_ms / 1e3:.1f} s")
        self.first.set()
        return process

    async def _work(self, process: AnsweringProcess) -> None:
        """Lets requests have their turns until the process dies."""
        tasks = [asyncio.create_task(self._send(process)), asyncio.create_task(self._watch(process))]
        try:
            while event := await process.event():
                self._take(event)
            reason = await process.death()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await process.end()
        self.tell(f"{reason}; it is started again")
        self._blame(reason, 504 if process.was_stopped else 502)

    async def _send(self, process: AnsweringProcess) -> None:
        while True:
            request = self._next()
            if request is None:
                self._changed.clear()
                await self._changed.wait()
                continue
            if request.expiry:
                request.expiry.cancel()
            request.sent = time.monotonic()
            self._with_process[request.number] = request
            await process.ask(request.number, request.image, request.wanted)

    def _next(self) -> _Request | None:
        """The request whose turn it is, if it is one's turn."""
        while self._waiting and self._waiting[0].answer.done():  # who asked has left
            left = self._waiting.popleft()
            if left.expiry:
                left.expiry.cancel()
        if not self._waiting or len(self._with_process) >= _AT_ONCE:
            return None
        lonely = self._waiting[0].is_alone or any(each.is_alone for each in self._with_process.values())
        return None if lonely and self._with_process else self._waiting.popleft()

    def _take(self, event: Event) -> None:
        request = self._with_process.pop(event["number"])
        self._answers, self._answered = self._answers + 1, time.monotonic()
        self._mean_s += 0.1 * (time.monotonic() - request.sent - self._mean_s)
        if not request.answer.done():
            request.answer.set_result(event)
        self._changed.set()

    async def _watch(self, process: AnsweringProcess) -> None:
        """Ends a process that does not answer."""
        limit_s = self.limits.answer_s
        while True:
            await asyncio.sleep(_WATCH_SHARE * limit_s)
            oldest = next(iter(self._with_process.values()), None)
            if oldest and time.monotonic() - max(oldest.sent, self._answered) > limit_s:
                process.stop(f"it gave no answer for {limit_s:g} s, so its process was ended")
                return

    def _blame(self, reason: str, status: int) -> None:
        """Fails what killed a process, where that is certain; what may be innocent is tried again alone."""
        left = list(self._with_process.values())
        self._with_process.clear()
        if len(left) == 1:
            request = left[0]
            if not request.answer.done():
                request.answer.set_exception(RefusalError(status, f"the file failed: {reason}"))
            return
        for request in reversed(left):
            request.is_alone = True
            self._waiting.appendleft(request)

    def _fail(self, reason: str, pause_s: float) -> None:
        """The file does not open: nobody waits for it."""
        self.state, self.reason = FileState.FAILED, reason
        self._again_at = time.monotonic() + pause_s
        self.tell(f"does not open: {reason}; tried again in {pause_s:g} s")
        self.first.set()
        for request in self._waiting:
            if request.expiry:
                request.expiry.cancel()
            if not request.answer.done():
                request.answer.set_exception(self._closed())
        self._waiting.clear()

    def _closed(self) -> RefusalError:
        wait_s = max(1, round(self._again_at - time.monotonic()))
        return RefusalError(503, f"the file does not open: {self.reason}", "it is tried again", wait_s)

    def _expire(self, request: _Request) -> None:
        self._waiting.remove(request)
        if not request.answer.done():
            message = f"this file is busy: no turn came within {self.limits.queue_s:g} s"
            request.answer.set_exception(RefusalError(503, message, "try again", self._patience()))

    def _patience(self) -> int:
        """Whole seconds after which the queue should be shorter."""
        return max(1, round(len(self._waiting) * self._mean_s))
