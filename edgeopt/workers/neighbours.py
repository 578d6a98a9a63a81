"""Runs that work side by side on one machine, where one that measures must have it for itself.

Two files in a folder that the runs of a machine share are held by locks, which the system lets go of when a process
dies, however it dies. Who works holds `work` together with the others. Who measures holds `wish` alone, then `work`
alone; who sees that `wish` is held stops its workers where they are, lets go of `work`, and goes on when both are free.
So nobody stays stopped for one that was killed: each run stops and continues its own workers, and where a run dies
itself, the system wakes what it had stopped (see `edgeopt.workers.launch`).
"""

from __future__ import annotations

import fcntl
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Protocol

from edgeopt.cores import own_cores, use_cores
from edgeopt.files import storage_errors

_LOOK_S = 0.05


class Stoppable(Protocol):
    """Workers that can be stopped where they are."""

    def halt(self) -> None:
        """Stops them; none begins until `go_on`."""
        ...

    def go_on(self) -> None:
        """Lets them work again."""
        ...


class _Lock:
    """A lock on a file, held together with others or alone, by this object."""

    def __init__(self, file: Path) -> None:
        self._descriptor = os.open(file, os.O_CREAT | os.O_RDWR, 0o666)

    def try_to_share(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def take_alone(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def let_go(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._descriptor)


class Neighbours:
    """A run's place among those that work beside it on this machine; `folder` is for all of them.

    Within the block the run is at work: its `workers` are stopped while another run measures. It measures in `alone`,
    on the processors `cores`, when none of its own workers is at work.
    """

    def __init__(self, folder: Path, workers: Stoppable, cores: frozenset[int]) -> None:
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._wish, self._work = (_Lock(folder / f"{platform.node()}-{name}.lock") for name in ("wish", "work"))
        self._workers, self._cores = workers, cores
        self._mutex = threading.Lock()
        self._is_in, self._measures = False, False
        self._end = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Neighbours:
        self._come_in()
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._watch.join()
        self._workers.go_on()
        self._wish.close()
        self._work.close()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within, none of the others works, and no other measures."""
        before = own_cores()
        with self._mutex:
            self._measures = True
            self._go_out()
            self._workers.go_on()  # what is timed may begin
        self._wish.take_alone()
        self._work.take_alone()
        use_cores(self._cores)
        try:
            yield
        finally:
            use_cores(before)
            self._wish.let_go()
            self._work.let_go()
            self._come_in()
            self._measures = False

    def _look(self) -> None:
        """Stops and continues the workers, until the block ends."""
        while not self._end.wait(_LOOK_S):
            with self._mutex:
                if self._measures:
                    continue
                if self._is_in and not self._nobody_wishes():
                    self._workers.halt()
                    self._go_out()
                elif not self._is_in and self._may_come_in():
                    self._workers.go_on()

    def _come_in(self) -> None:
        while not self._may_come_in():
            time.sleep(_LOOK_S)

    def _may_come_in(self) -> bool:
        self._is_in = self._nobody_wishes() and self._work.try_to_share()
        return self._is_in

    def _go_out(self) -> None:
        self._is_in = False
        self._work.let_go()

    def _nobody_wishes(self) -> bool:
        free = self._wish.try_to_share()
        if free:
            self._wish.let_go()
        return free
