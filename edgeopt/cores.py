"""How many processors this process may use, which in a container is fewer than the machine has."""

from __future__ import annotations

import os
from collections.abc import Iterable


def usable_cores() -> int:
    """How many processors the system lets this process use, at least 1."""
    return len(own_cores()) or os.cpu_count() or 1


def own_cores() -> frozenset[int]:
    """The numbers of the processors that this thread may use; empty where the system does not tell."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()


def use_cores(cores: Iterable[int]) -> None:
    """Keeps this thread, and what it starts from now on, to these processors; nothing changes where there are none."""
    chosen = frozenset(cores)
    if chosen and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, chosen)
