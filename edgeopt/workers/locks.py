"""Lock files, which the system lets go of when the process that holds one dies, however it dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held_if_free(lock: Path) -> Iterator[bool]:
    """Holds a lock while the block works where no living process holds it, without waiting; says whether it does."""
    from filelock import FileLock, Timeout  # only whoever asks

    mine = FileLock(lock)
    try:
        mine.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        mine.release()
