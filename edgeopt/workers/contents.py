"""What lies in a store, and its removal. Nothing that the store did not make is ever touched."""

from __future__ import annotations

import contextlib
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from edgeopt.errors import StorageError
from edgeopt.files import storage_errors
from edgeopt.workers.layout import Layout, Record
from edgeopt.workers.locks import held_if_free

_KEY = re.compile(r"[0-9a-f]{64}")
_PENDING = re.compile(r"[0-9a-f]{32}|[0-9a-f]{64}-[0-9a-f]{32}(\.old)?")
_SHELF = re.compile(r"[0-9a-f]{2}")


class EntryKind(StrEnum):
    """What a folder in a store is."""

    RESULT = "result"
    DAMAGED = "damaged result"
    CHECKPOINTS = "checkpoints of a stage that did not end"
    HALF = "half a result of a run that was killed"


@dataclass(frozen=True)
class Entry:
    """A folder in a store. `key` is that of its stage, `made` a Unix time, `label` empty where nothing says it."""

    path: Path
    kind: EntryKind
    key: str
    size_bytes: int
    made: float
    label: str = ""


def require_store(root: Path) -> None:
    """Raises `StorageError` where there is no store at `root`, or a link to one."""
    if root.is_symlink() or not root.is_dir():
        raise StorageError(
            f"there is no store {root}", hint="give the folder that runs were given with --out: it holds .store"
        )


def entries(root: Path) -> Iterator[Entry]:
    """Everything in a store that takes space. Links and what bears no name of the store's are passed over, and so is
    what goes while it is looked at, because a run at work has finished it.
    """
    layout = Layout(root)
    for shelf in _folders(root, _SHELF):
        for folder in _folders(shelf, _KEY):
            if folder == layout.result(folder.name):
                with contextlib.suppress(FileNotFoundError):
                    yield _result(folder)
    for folder in _folders(layout.all_work, _KEY):
        with contextlib.suppress(FileNotFoundError):
            yield Entry(folder, EntryKind.CHECKPOINTS, folder.name, *_size_and_time(folder))
    for folder in _folders(layout.pending, _PENDING):
        with contextlib.suppress(FileNotFoundError):
            yield Entry(folder, EntryKind.HALF, folder.name.partition("-")[0], *_size_and_time(folder))


def remove(entry: Entry, root: Path) -> bool:
    """Removes an entry, first out of the way, so that nobody sees a part of it; False where its stage is being made."""
    layout = Layout(root)
    with storage_errors(root):
        layout.locks.mkdir(exist_ok=True)
        with held_if_free(layout.lock(entry.key)) as is_free, contextlib.suppress(FileNotFoundError):
            if is_free:  # what is not found has gone by itself
                aside = layout.pending / uuid.uuid4().hex
                aside.parent.mkdir(exist_ok=True)
                entry.path.rename(aside)
                shutil.rmtree(aside)
    return is_free


def remove_idle_locks(root: Path) -> None:
    """Removes the lock files of stages that have neither a result nor checkpoints. Only while nobody is at work: a lock
    that is unlinked under a waiting process holds nobody back.
    """
    layout = Layout(root)
    kept = {folder.name for shelf in [*_folders(root, _SHELF), layout.all_work] for folder in _folders(shelf, _KEY)}
    with storage_errors(root):
        for lock in layout.locks.glob("*.lock"):
            if _KEY.fullmatch(lock.stem) and lock.stem not in kept:
                lock.unlink(missing_ok=True)


def _result(folder: Path) -> Entry:
    size, changed = _size_and_time(folder)
    record = Record.of(folder)
    if record is None:
        return Entry(folder, EntryKind.DAMAGED, folder.name, size, changed)
    kind = EntryKind.RESULT if record.is_whole(folder) else EntryKind.DAMAGED
    return Entry(folder, kind, folder.name, size, record.finished, record.label)


def _folders(folder: Path, name: re.Pattern[str]) -> Iterator[Path]:
    """The folders of such a name in a folder, no links."""
    if not folder.is_dir() or folder.is_symlink():
        return
    for each in sorted(folder.iterdir()):
        if name.fullmatch(each.name) and each.is_dir() and not each.is_symlink():
            yield each


def _size_and_time(folder: Path) -> tuple[int, float]:
    """Bytes of all files in a folder, and when it or one of them was last written."""
    size, latest = 0, folder.stat().st_mtime
    for file in folder.rglob("*"):
        try:
            found = file.lstat()
        except FileNotFoundError:
            continue
        size, latest = size + found.st_size, max(latest, found.st_mtime)
    return size, latest
