"""How long the threads of a worker spin before they sleep, while one waits for another.

torch's operators end in a barrier of OpenMP (GNU's libgomp), where threads by default spin for milliseconds. On idle
processors that is the fastest way to go on. Beside other work a thread then spins away the time that the other one
needs, at every operator: a training on two busy cores took up to thirty times as long with it as without.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

_COUNT = "GOMP_SPINCOUNT"
_POLICY = "OMP_WAIT_POLICY"
_QUIET, _BUSY = 10_000, 1_000  # turns of the loop; the first loses nothing on idle processors, the second 15 %
_BUSY_SHARE = 0.25
_LOOK_S = 0.1


def spin_settings(environment: Mapping[str, str], busy: float) -> dict[str, str]:
    """Variables for a worker on a machine whose processors are `busy` to a share of 0 to 1; none where the user has
    said how threads wait.
    """
    if _COUNT in environment or _POLICY in environment:
        return {}
    return {_COUNT: str(_BUSY if busy > _BUSY_SHARE else _QUIET)}


def busy_share(look_s: float = _LOOK_S, file: Path = Path("/proc/stat")) -> float:
    """The share, 0 to 1, of the processors' time that others used while this process slept for `look_s`; 0 where the
    system does not tell.

    The kernel counts the whole machine; where this process may use a part of it, the share is still a fair guess.
    """
    before = _times(file)
    time.sleep(look_s)
    after = _times(file)
    if before is None or after is None:
        return 0.0
    passed = [now - then for now, then in zip(after, before, strict=True)]
    idle = sum(passed[3:5])  # idle, and waiting for a disk
    return 1 - idle / sum(passed) if sum(passed) > 0 else 0.0


def _times(file: Path) -> list[int] | None:
    """Ticks of all processors together: user, nice, system, idle, iowait, irq, softirq, steal."""
    try:
        name, *ticks = file.read_text().partition("\n")[0].split()
        return [int(tick) for tick in ticks[:8]] if name == "cpu" else None
    except (OSError, ValueError):
        return None
