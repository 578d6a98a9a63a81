"""Worker processes as the parent sees them: start them, follow their events, end them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Protocol

from edgeopt import errors
from edgeopt.arrays import Json
from edgeopt.errors import Location, PausedError, Problem, UserError, WorkerDiedError, WorkerError
from edgeopt.json_values import to_text
from edgeopt.workers.launch import Launch, Nursery, Process, begun, can_fork, spawned
from edgeopt.workers.locks import held_if_free
from edgeopt.workers.spinning import busy_share, spin_settings

Event = dict[str, Json]

_FORK_S = 0.05  # from a fork until it is told

#: Set by Lightning for the helpers that a training starts. What a cluster's launcher says in it is not about a worker.
_HELPER = "LOCAL_RANK"


class WorkerJob(Protocol):
    """What a worker is to do, a frozen dataclass: `module` is run with its JSON in a file."""

    @property
    def module(self) -> str: ...


class Listener(Protocol):
    """Whoever shows what a worker does."""

    def __call__(self, worker: str, event: Event) -> None:
        """`worker` is the label that the worker was started with."""
        ...


class Workers:
    """The worker processes of one run. Leaving the block ends those that are still at work.

    `folder`, below the one given, is for files that they read, and goes with them. That of a killed run goes when
    another run begins.
    """

    def __init__(self, folder: Path, log: Path, listener: Listener) -> None:
        self.folder = folder / f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._log = log
        self._listener = listener
        self._alive: set[Worker] = set()
        self._nursery: Nursery | None = None
        self._lock = threading.Condition()
        self._is_halted = False
        self._count = 0
        self._closed = False

    def __enter__(self) -> Workers:
        from filelock import FileLock  # a process that starts no worker has no use for it

        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._held = FileLock(_lock_of(self.folder))
        self._held.acquire()
        self.folder.mkdir()
        _sweep(self.folder.parent)
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        _lock_of(self.folder).unlink(missing_ok=True)
        self._held.release()

    def end(self) -> None:
        """Ends every worker that is still at work; none can be started any more."""
        with self._lock:
            self._closed = True
            alive = list(self._alive)
            self._lock.notify_all()
        for worker in alive:
            worker.end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def halt(self) -> None:
        """Stops every worker where it is; none begins until `go_on`."""
        with self._lock:
            self._is_halted = True
            self._signal(signal.SIGSTOP)
            if any(not worker.signal(signal.SIGSTOP) for worker in self._alive):
                time.sleep(_FORK_S)  # its nursery has forked it just now, or will once it goes on
                for worker in self._alive:
                    worker.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Lets all work again that `halt` stopped."""
        with self._lock:
            if self._is_halted:
                self._is_halted = False
                self._signal(signal.SIGCONT)
                for worker in self._alive:
                    worker.signal(signal.SIGCONT)
                self._lock.notify_all()

    def _signal(self, number: signal.Signals) -> None:
        """Sends a signal to the nursery, where there is one."""
        if self._nursery is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._nursery.pid, number)

    def start(
        self, job: WorkerJob, label: str, threads: int | None = None, settings: Mapping[str, str] | None = None
    ) -> Worker:
        """Starts a worker; `threads` bounds the threads of its numeric libraries, `settings` are variables of its
        environment.
        """
        return self._begin(job, label, spawned, worker_environment(threads, settings))

    def _begin(self, job: WorkerJob, label: str, launch: Launch, environment: Mapping[str, str]) -> Worker:
        with self._lock:
            self._lock.wait_for(lambda: self._closed or not self._is_halted)
            if self._closed:
                raise KeyboardInterrupt
            self._count += 1
            file = self.folder / f"job-{self._count}.json"
            file.write_text(to_text(job))
            with self._log.open("ab") as errors_to:
                errors_to.write(f"\n--- {label}\n".encode())
                errors_to.flush()
                process = launch(job.module, file, environment=environment, errors_to=errors_to)
            worker = Worker(process, label, self._log, lambda event: self._listener(label, event))
            self._alive.add(worker)
        return worker

    @contextmanager
    def nursery(self, modules: Sequence[str], threads: int) -> Iterator[Nursery | None]:
        """Within, a process whose forks begin with `modules` imported, for `run`; None where a system cannot fork.

        What the modules start must not be threads, and no module may be one that a worker is not to have.
        """
        if not can_fork():
            yield None
            return
        with self._lock:
            self._lock.wait_for(lambda: self._closed or not self._is_halted)
            nursery = self._nursery = Nursery(modules, worker_environment(threads), self._log)
        try:
            yield nursery
        finally:
            with self._lock:
                self._nursery = None
            nursery.end()

    def give_up(self, worker: Worker) -> None:
        """Ends one worker, whatever it does; the others work on."""
        with self._lock:
            self._alive.discard(worker)
        worker.end()

    def finish(self, worker: Worker, limit_s: float | None = None) -> None:
        """Waits until a worker is done. Raises what it raised, or `WorkerError` for a bug, a crash, or `limit_s` of
        silence.
        """
        try:
            worker.wait(limit_s)
        finally:
            with self._lock:
                self._alive.discard(worker)

    def run(
        self,
        job: WorkerJob,
        label: str,
        threads: int | None = None,
        limit_s: float | None = None,
        nursery: Nursery | None = None,
    ) -> None:
        """Starts a worker, from `nursery` where there is one, and waits until it is done, or is silent for `limit_s`.

        Where it has several threads, these wait for one another as fits what else the machine does. One that is timed
        is started by `start` alone, with threads as its runtime makes them.
        """
        if nursery is not None:
            with contextlib.suppress(ConnectionError):  # the nursery is gone: the worker begins as any other
                worker = self._begin(job, label, nursery.start, worker_environment(threads))
                if worker.has_begun():
                    self.finish(worker, limit_s)
                    return
                self.give_up(worker)
        settings = spin_settings(os.environ, self._busy) if threads != 1 else {}
        self.finish(self.start(job, label, threads, settings), limit_s)

    @cached_property
    def _busy(self) -> float:
        """How busy the machine was with other work before the first worker of several threads began."""
        return busy_share()


def worker_environment(threads: int | None = None, settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a worker: this process's own, with `threads` for the numeric libraries, and `settings`."""
    environment = os.environ | (settings or {})
    if threads:
        environment |= {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    environment.pop(_HELPER, None)
    return environment


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _sweep(jobs: Path) -> None:
    """Removes the folders of runs that were killed: the system has let go of their locks."""
    for lock in jobs.glob("*.lock"):
        with held_if_free(lock) as is_free:
            if is_free:
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink(missing_ok=True)


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

    def __init__(self, process: Process, label: str, log: Path, listener: Callable[[Event], None]) -> None:
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
        is_late, is_here = threading.Event(), threading.Event()
        began_s = self._moving.seconds()

        def watch() -> None:
            left_s = limit_s
            while not is_here.wait(left_s):
                left_s = limit_s - (self._moving.seconds() - began_s)
                if left_s <= 0:
                    is_late.set()
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(self._process.pid, signal.SIGKILL)
                    return

        threading.Thread(target=watch, daemon=True).start()
        try:
            return self._next()
        except WorkerError as error:
            if not is_late.is_set():
                raise
            message = f"{self.label}: no sign of life for {limit_s:g} s, so it was ended"
            raise WorkerError(message, str(self._log)) from error
        finally:
            is_here.set()

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
