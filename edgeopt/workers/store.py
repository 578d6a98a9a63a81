"""Results of stages, by key, on disk.

A result is written into a temporary folder and renamed into place, so a run killed at any instant leaves whole results
or none. Two runs on one store take turns on a stage: the second finds the first one's result.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from edgeopt.arrays import Json
from edgeopt.files import storage_errors
from edgeopt.workers.layout import Layout, Record, digests_of, sizes_of
from edgeopt.workers.locks import held_if_free


@dataclass(frozen=True)
class Result:
    """A finished stage: the folder with its files, what it says of itself, and how long it took."""

    key: str
    folder: Path
    values: dict[str, Json]
    seconds: float


@dataclass(frozen=True)
class Store:
    """A folder of results; `root` is made on first use. Results older than `not_before` (a Unix time) do not count.

    Files are known by their digests, each read once in a process. One that `trusts` them looks at their sizes alone: a
    worker, whose parent has found the same results just before.
    """

    root: Path
    not_before: float = 0.0
    trusts: bool = False

    def find(self, key: str) -> Result | None:
        """The result of `key`, or None when it is missing, too old or damaged."""
        folder = self._layout.result(key)
        record = Record.of(folder)
        if record is None or record.finished < self.not_before or not record.is_whole(folder):
            return None
        if not (self.trusts or record.has_bytes(folder)):
            return None
        return Result(key, folder, record.values, record.seconds)

    def has(self, key: str) -> bool:
        """Whether there is a result of `key`, by its record alone: whoever uses it asks `find`."""
        return Record.of(self._layout.result(key)) is not None

    def anew(self, keys: Iterable[str]) -> Store:
        """This store, for which all that it has of some results now is too old, also where the clock was ahead then."""
        records = (Record.of(self._layout.result(key)) for key in keys)
        latest = max((record.finished for record in records if record is not None), default=0.0)
        return replace(self, not_before=max(time.time(), math.nextafter(latest, math.inf)))

    def compute(self, key: str, make: Callable[[Path], dict[str, Json]], label: str = "") -> Result:
        """The result of `key`: found, or made by `make(folder)`, which writes its files and returns its values.

        `label` is what people call it.

        Raises `StorageError` when nothing can be written into the store; what `make` meets elsewhere is its own.
        """
        with self._turn(key):
            if found := replace(self, trusts=False).find(key):
                return found
            with self._pending(key) as pending:
                start = time.perf_counter()
                with storage_errors(self.root, inside=self.root):
                    values = make(pending)
                seconds = time.perf_counter() - start
                finished = max(time.time(), self.not_before)  # a clock that was set back makes nothing too old
                with storage_errors(self.root):
                    Record(label, values, seconds, finished, sizes_of(pending), digests_of(pending), key).write(pending)
                    return Result(key, self._place(key, pending), values, seconds)

    def bring(self, key: str, fetch: Callable[[Path], bool]) -> Result | None:
        """The result of `key`: found, or what `fetch(folder)` writes there, files and record, as it was made elsewhere;
        None where that says that there is none.
        """
        with self._turn(key):
            if found := self.find(key):
                return found
            with self._pending(key) as pending, storage_errors(self.root):
                if not fetch(pending):
                    return None
                self._place(key, pending)
            return self.find(key)

    @contextmanager
    def _pending(self, key: str) -> Iterator[Path]:
        """A folder for a result on its way, gone at the end if it was not renamed into place."""
        pending = self._layout.pending / f"{key}-{uuid.uuid4().hex}"
        with storage_errors(self.root):
            pending.mkdir(parents=True)
        try:
            yield pending
        finally:
            shutil.rmtree(pending, ignore_errors=True)
            shutil.rmtree(pending.with_suffix(".old"), ignore_errors=True)

    def _place(self, key: str, pending: Path) -> Path:
        """Renames a complete result into place; checkpoints are of no use then."""
        folder = self._layout.result(key)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():  # damaged or too old: out of the way first, so that nobody sees a mixture
            folder.rename(pending.with_suffix(".old"))
        pending.rename(folder)
        shutil.rmtree(self._layout.work(key), ignore_errors=True)
        return folder

    def forget(self, key: str) -> None:
        """Removes the result of `key`, if there is one, so that it is made again."""
        folder, aside = self._layout.result(key), self._layout.pending / uuid.uuid4().hex
        with storage_errors(self.root), self._turn(key):
            if folder.exists():
                aside.parent.mkdir(parents=True, exist_ok=True)
                folder.rename(aside)  # first out of the way, so that nobody sees a part of it
                shutil.rmtree(aside, ignore_errors=True)

    def forget_work(self, key: str) -> None:
        """Removes what a killed run left for `key`, so that nothing is resumed from it."""
        with storage_errors(self.root):
            shutil.rmtree(self._layout.work(key), ignore_errors=True)

    def sweep(self) -> None:
        """Removes half-made results that runs killed more than a day ago left behind, never one that is being made: a
        pass may train for days before it writes into its folder.
        """
        for pending in self._layout.pending.glob("*"):
            with contextlib.suppress(FileNotFoundError):  # it was finished just now
                if time.time() - pending.stat().st_mtime > 86_400 and not self._is_held(pending.name.partition("-")[0]):
                    shutil.rmtree(pending, ignore_errors=True)

    def _is_held(self, key: str) -> bool:
        """Whether a living process makes the result of `key`."""
        file = self._layout.lock(key)
        if not file.exists():
            return False
        with held_if_free(file) as is_free:
            return not is_free

    def work_dir(self, key: str) -> Path:
        """A folder that outlives a killed run, for checkpoints of the stage; gone when the stage is finished."""
        folder = self._layout.work(key)
        with storage_errors(self.root):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def turns(self) -> Path:
        """The folder with the locks of runs that work side by side, see `edgeopt.workers.neighbours`."""
        return self._layout.turns

    @property
    def plugins(self) -> Path:
        """The folder with plugin files that the nodes of a cluster are handed."""
        return self._layout.plugins

    @property
    def _layout(self) -> Layout:
        return Layout(self.root)

    @contextmanager
    def _turn(self, key: str) -> Iterator[None]:
        """Holds the stage's lock; the system lets go of it when the process dies, however it dies."""
        from filelock import FileLock  # needed only where something is computed

        lock = FileLock(self._layout.lock(key))
        with storage_errors(self.root):
            self._layout.locks.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()
