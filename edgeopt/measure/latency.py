"""Latency and memory of one file, in a process that does nothing else.

The parent keeps one such process for each file and lets them work in turns, so that a drift of the machine meets all
files alike. A process that waits for its turn does nothing: runtimes keep their threads spinning for a while after a
call (ONNX Runtime for 40 ms), and a turn would be over before those of the file before it have left the processor.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.arrays import Json
from edgeopt.options import MeasureSettings
from edgeopt.plugins.declarations import ExporterPlugin

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeopt.arrays import Pixels

_WARM_S = 0.02  # of calls that do not count, at the start of a turn: the file before it has taken the caches
_LOOK_S = 0.005  # between two looks at the processor time that this process takes
_IDLE_SHARE = 0.1
_MAX_WAIT_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Milliseconds of a call, over `runs` calls after `warmup` calls that do not count.

    `turns` holds the p50 of each turn's calls. Where they are far apart, the machine changed its speed. The other files
    of a run had the same turn right before or after.
    """

    p50: float
    p90: float
    std: float
    threads: int
    warmup: int
    runs: int
    batch_size: int = 1
    rounds: int = 1
    turns: tuple[float, ...] = ()


def summarize(turns_ms: Sequence[Sequence[float]], settings: MeasureSettings) -> Latency:
    """Figures from the times of the calls in each turn, ms; needs at least two calls in all."""
    times_ms = list(chain.from_iterable(turns_ms))
    deciles = statistics.quantiles(times_ms, n=10, method="inclusive")
    return Latency(
        p50=statistics.median(times_ms),
        p90=deciles[8],
        std=statistics.stdev(times_ms),
        threads=settings.threads,
        warmup=settings.warmup,
        runs=len(times_ms),
        batch_size=settings.batch_size,
        rounds=settings.rounds,
        turns=tuple(statistics.median(times) for times in turns_ms),
    )


def turns(runs: int, rounds: int) -> list[int]:
    """`runs` calls dealt out over at most `rounds` turns, as evenly as can be."""
    rounds = min(rounds, runs)
    return [runs // rounds + (1 if turn < runs % rounds else 0) for turn in range(rounds)]


def serve(
    exporter: ExporterPlugin,
    file: Path,
    batch: NDArray[np.float32] | Pixels,
    threads: int,
    warmup: int,
    requests: Iterator[str],
    answer: Callable[[dict[str, Json]], None],
) -> None:
    """Opens `file` and answers each request, a number of calls, with their times in ms; at the end with the peak
    memory.

    `batch` is what the file's predictor takes: float32 (n, 3, height, width), normalized, or pixels.
    """
    for module in exporter.runtime_modules:
        import_module(module)  # so that the memory below is the file's own, not the runtime's code
    gc.collect()
    before = _resident_bytes()
    _reset_peak()
    with exporter.opened(file, threads) as predictor:
        _answer_requests(lambda: predictor.predict(batch), warmup, requests, answer)
        answer({"event": "memory", "peak_memory_bytes": max(0, _peak_bytes() - before)})


def _answer_requests(
    call: Callable[[], object], warmup: int, requests: Iterator[str], answer: Callable[[dict[str, Json]], None]
) -> None:
    for _ in range(warmup):
        call()
    _wait_until_idle()
    answer({"event": "ready"})
    for request in requests:
        if request.strip() == "end":
            break
        call()
        warm_until = time.perf_counter() + _WARM_S
        while time.perf_counter() < warm_until:
            call()
        times = []
        for _ in range(int(request)):
            start = time.perf_counter()
            call()
            times.append((time.perf_counter() - start) * 1e3)
        _wait_until_idle()
        answer({"event": "times", "times_ms": times})


def _wait_until_idle() -> None:
    """Returns once no thread of this process is running, or after half a second: some are told to spin for ever."""
    give_up = time.perf_counter() + _MAX_WAIT_S
    while time.perf_counter() < give_up:
        used = time.process_time()
        time.sleep(_LOOK_S)
        if time.process_time() - used < _IDLE_SHARE * _LOOK_S:
            return


def _resident_bytes() -> int:
    return _status("VmRSS") or _peak_bytes()


def _peak_bytes() -> int:
    if peak := _status("VmHWM"):
        return peak
    import resource  # where there is no /proc: macOS counts bytes, the others KiB

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _reset_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # not Linux, or not allowed: the peak is then that of the process


def _status(name: str) -> int | None:
    """A figure of /proc/self/status in bytes, or None where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)
