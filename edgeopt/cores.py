"""How many processors this process may use, which in a container is fewer than the machine has."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """How many processors the system lets this process use, at least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
