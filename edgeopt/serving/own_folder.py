"""The folder of one server, for what its processes are told."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgeopt.workers.locks import held_if_free

_PREFIX, _LOCK = "edgeopt-serve-", "lock"
_YOUNG_S = 60.0  # a server that begins makes its folder a moment before it holds the lock


@contextmanager
def own_folder(root: Path | None = None) -> Iterator[Path]:
    """A folder below `root`, the usual place of temporary files, that goes with this server.

    Those of this user's servers that were killed go now: the system has let go of their locks.
    """
    root = root or Path(tempfile.gettempdir())
    for lock in root.glob(f"{_PREFIX}*/{_LOCK}"):
        with suppress(OSError):  # it went just now, or is another user's
            _remove_dead(lock)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=root) as folder, held_if_free(Path(folder) / _LOCK):
        yield Path(folder)


def _remove_dead(lock: Path) -> None:
    found = lock.parent.stat()
    if (hasattr(os, "getuid") and found.st_uid != os.getuid()) or time.time() - found.st_mtime < _YOUNG_S:
        return
    with held_if_free(lock) as is_free:
        if is_free:
            shutil.rmtree(lock.parent, ignore_errors=True)
