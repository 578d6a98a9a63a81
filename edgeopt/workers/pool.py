"""The worker processes of a run: start them, wait for them, end them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Protocol

from edgeopt.files import storage_errors
from edgeopt.json_values import to_text
from edgeopt.workers.launch import Launch, Nursery, can_fork, spawned
from edgeopt.workers.locks import held_if_free
from edgeopt.workers.spinning import busy_share, spin_settings
from edgeopt.workers.worker import Event, Log, Worker

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

        with storage_errors(self.folder.parent):
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self._held = FileLock(_lock_of(self.folder))
            self._held.acquire()
            self.folder.mkdir()
            _sweep(self.folder.parent)
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        with contextlib.suppress(OSError):  # the disk may be gone
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
            with storage_errors(file):
                file.write_text(to_text(job))
            with storage_errors(self._log), self._log.open("ab") as errors_to:
                errors_to.write(f"\n--- {label}\n".encode())
                errors_to.flush()
                log = Log(self._log, errors_to.tell())
                process = launch(job.module, file, environment=environment, errors_to=errors_to)
            worker = Worker(process, label, log, lambda event: self._listener(label, event))
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
