"""Where a job that is a whole run is done beside others: in a process of this machine, or on a node of a cluster.

What a job leaves is a file that it names; a log takes what its process prints.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgeopt.files import storage_errors
from edgeopt.workers.pool import Listener, WorkerJob, Workers


@dataclass(frozen=True)
class Errand:
    """A job, what people call it, the folder for the files that its process reads, and the log."""

    job: WorkerJob
    label: str
    jobs: Path
    log: Path


class Places(Protocol):
    """Where errands are done; several threads ask."""

    @property
    def told(self) -> str:
        """Where that is, in a few words."""
        ...

    def do(self, errand: Errand, listener: Listener) -> None:
        """Does one, and tells on the way what can be told from there. Raises `UserError` for what its job found wrong,
        and `WorkerError` for a bug, or where its process died.
        """
        ...

    def end(self) -> None:
        """Ends all that is being done; nothing begins any more."""
        ...


class Processes:
    """Processes of this machine."""

    told = "here"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at_work: set[Workers] = set()
        self._is_over = False

    def do(self, errand: Errand, listener: Listener) -> None:
        with workers_of(errand, listener) as workers, self._known(workers):
            workers.finish(workers.start(errand.job, errand.label))

    def end(self) -> None:
        with self._lock:
            self._is_over = True
            at_work = list(self._at_work)
        for workers in at_work:
            workers.end()

    @contextmanager
    def _known(self, workers: Workers) -> Iterator[None]:
        with self._lock:
            if self._is_over:
                raise KeyboardInterrupt
            self._at_work.add(workers)
        try:
            yield
        finally:
            with self._lock:
                self._at_work.discard(workers)


def workers_of(errand: Errand, listener: Listener) -> Workers:
    """The process of an errand, which is to be started."""
    with storage_errors(errand.log):
        errand.log.parent.mkdir(parents=True, exist_ok=True)
    return Workers(errand.jobs, errand.log, listener)
