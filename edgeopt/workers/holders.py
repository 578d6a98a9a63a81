"""Who is at work on a store, so that nobody cleans away what they need.

Every run names what it holds in a file of its own beside a lock, which the system lets go of when the process dies,
however it dies. A cleaning and the start of a run exclude each other.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgeopt.errors import StorageError
from edgeopt.files import storage_errors, write_aside
from edgeopt.workers.locks import held_if_free

FOLDER, GATE = "holders", "clean.lock"
_GATE_WAIT_S = 10.0


@dataclass(frozen=True)
class Holder:
    """A living process on a store: what it is, the keys that it holds, and since when, a Unix time."""

    what: str
    keys: frozenset[str]
    since: float


@contextmanager
def at_work(root: Path, keys: Iterable[str], what: str) -> Iterator[None]:
    """Holds the results of `keys`, and all that is made from now on, while the block works."""
    from filelock import FileLock  # only whoever works on a store

    folder, name = root / FOLDER, uuid.uuid4().hex
    with storage_errors(root):
        folder.mkdir(parents=True, exist_ok=True)
        mine, said = FileLock(folder / f"{name}.lock"), folder / f"{name}.json"
        with FileLock(root / GATE):  # a cleaning that is under way ends first
            mine.acquire()
            where = f"{what}, process {os.getpid()} on {platform.node()}"
            write_aside(said, json.dumps({"what": where, "keys": sorted(keys), "since": time.time()}))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            said.unlink(missing_ok=True)
        mine.release()
        with contextlib.suppress(OSError):
            (folder / f"{name}.lock").unlink(missing_ok=True)


@contextmanager
def nobody_starts(root: Path) -> Iterator[tuple[Holder, ...]]:
    """Within, no run begins to work on the store; gives those that do already.

    Raises `StorageError` when another cleaning is under way.
    """
    from filelock import FileLock, Timeout  # only whoever cleans

    with storage_errors(root):
        gate = FileLock(root / GATE)
        try:
            gate.acquire(timeout=_GATE_WAIT_S)
        except Timeout as error:
            raise StorageError(f"another cleaning of {root} is under way", hint="wait until it has ended") from error
    try:
        yield tuple(_living(root / FOLDER))
    finally:
        gate.release()


def _living(folder: Path) -> Iterator[Holder]:
    """The holders whose processes live; what dead ones left is removed."""
    for said in sorted(folder.glob("*.json")):
        lock = said.with_suffix(".lock")
        with held_if_free(lock) as is_free:
            if is_free:
                said.unlink(missing_ok=True)
        if is_free:
            lock.unlink(missing_ok=True)
        else:
            with contextlib.suppress(FileNotFoundError):  # it ended just now
                values = json.loads(said.read_text(encoding="utf-8"))
                yield Holder(values["what"], frozenset(values["keys"]), values["since"])
