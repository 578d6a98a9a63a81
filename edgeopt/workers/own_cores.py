"""Processors that a process has for itself among others that take some in the same way.

A file in a folder that they share stands for each processor of a machine; the system lets go of its lock when the
process dies, however it dies.
"""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from edgeopt.cores import own_cores, use_cores
from edgeopt.files import storage_errors


@contextmanager
def some_cores(folder: Path, count: int) -> Iterator[None]:
    """Within, this thread and what it starts keep to `count` processors that nobody else took; to those that it has
    where so many are not free.
    """
    before = own_cores()
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        taken: list[int] = []
        for core in sorted(before):
            if len(taken) < count and _take(folder / f"{platform.node()}-core-{core}.lock", held):
                taken.append(core)
        use_cores(taken if len(taken) == count else before)
        try:
            yield
        finally:
            use_cores(before)


def _take(file: Path, held: ExitStack) -> bool:
    descriptor = os.open(file, os.O_CREAT | os.O_RDWR, 0o666)
    held.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
