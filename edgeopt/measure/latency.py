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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.arrays import Json
from edgeopt.options import MeasureSettings, Protocol
from edgeopt.plugins.blame import blamed
from edgeopt.plugins.declarations import ExporterPlugin
from edgeopt.plugins.predictor import Predictor, RemotePredictor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeopt.arrays import Pixels

OPEN, END = "open", "end"
"""Requests beside turns: to open the file, and that nothing more will be asked."""

_WARM_S = 0.02  # of calls that do not count, at the start of a turn: the file before it has taken the caches
_LOOK_S = 0.005  # between two looks at the processor time that this process takes
_IDLE_SHARE = 0.1
_MAX_WAIT_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Milliseconds of a call, over `runs` calls after `warmup` calls that do not count.

    `turns` holds the p50 of each turn's calls. Where they are far apart, the machine changed its speed. The other files
    of a run had the same turn right before or after. `load` is what opening the file takes, with its runtime's code in
    memory already, and `first` the first call, while no other file loads. `images_per_s` counts the images of all
    calls over the time of all calls. Figures that a report of an earlier version does not have are None.
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
    p99: float | None = None
    load: float | None = None
    first: float | None = None
    images_per_s: float | None = None


@dataclass(frozen=True)
class Start:
    """What it takes until a file answers, ms: to open it, and to answer for the first time."""

    load_ms: float
    first_ms: float


@dataclass(frozen=True)
class Turn:
    """What a file does when it is its turn: at least `calls` calls, for at least `seconds`."""

    calls: int
    seconds: float = 0.0

    def to_text(self) -> str:
        """The turn as a request to the process that has the file."""
        return f"{self.calls} {self.seconds:g}"

    @staticmethod
    def from_text(request: str) -> Turn:
        """Reads what `to_text` gave."""
        calls, seconds = request.split()
        return Turn(int(calls), float(seconds))


PROTOCOLS: Mapping[Protocol, Turn] = {
    Protocol.CALLS: Turn(0),
    Protocol.SINGLE_STREAM: Turn(1024, 60.0),
}
"""What a file does at least, in all its turns together. Single stream is that of MLPerf Inference, whose figure is the
p90: https://github.com/mlcommons/inference_policies/blob/master/inference_rules.adoc
"""


def summarize(turns_ms: Sequence[Sequence[float]], settings: MeasureSettings, start: Start) -> Latency:
    """Figures from the times of the calls in each turn, ms; needs at least two calls in all."""
    times_ms = list(chain.from_iterable(turns_ms))
    hundredths = statistics.quantiles(times_ms, n=100, method="inclusive")
    return Latency(
        p50=statistics.median(times_ms),
        p90=hundredths[89],
        std=statistics.stdev(times_ms),
        threads=settings.threads,
        warmup=settings.warmup,
        runs=len(times_ms),
        batch_size=settings.batch_size,
        rounds=settings.rounds,
        turns=tuple(statistics.median(times) for times in turns_ms),
        p99=hundredths[98],
        load=start.load_ms,
        first=start.first_ms,
        images_per_s=1e3 * settings.batch_size * len(times_ms) / sum(times_ms),
    )


def turns(settings: MeasureSettings) -> list[Turn]:
    """The calls that count and the time that they take at least, dealt out over at most `settings.rounds` turns, as
    evenly as can be.
    """
    least = PROTOCOLS[settings.protocol]
    runs = max(settings.runs, least.calls)
    rounds = min(settings.rounds, runs)
    calls = [runs // rounds + (1 if turn < runs % rounds else 0) for turn in range(rounds)]
    return [Turn(each, least.seconds / rounds) for each in calls]


def serve(
    exporter: ExporterPlugin,
    file: Path,
    batch: NDArray[np.float32] | Pixels,
    threads: int,
    warmup: int,
    requests: Iterator[str],
    answer: Callable[[dict[str, Json]], None],
) -> None:
    """Opens `file` when it is asked to, and answers each request, a `Turn`, with the times of its calls in ms; at the
    end with the peak memory.

    Before it is asked, its runtime is imported, so that the files of a run open one after the other and each in peace.
    `batch` is what the file's predictor takes: float32 (n, 3, height, width), normalized, or pixels.
    """
    for module in exporter.runtime_modules:
        import_module(module)  # so that the memory below is the file's own, not the runtime's code
    answer({"event": "here"})
    if next(requests).strip() != OPEN:
        return
    gc.collect()
    before = _resident_bytes()
    _reset_peak()
    start = time.perf_counter()
    with exporter.opened(file, threads) as predictor, blamed(exporter, "predict"):
        load_ms = predictor.load_ms if isinstance(predictor, RemotePredictor) else _since_ms(start)
        _answer_requests(_timed(predictor, batch), load_ms, warmup, requests, answer)
        grown = predictor.peak_memory_bytes() if isinstance(predictor, RemotePredictor) else _peak_bytes() - before
        answer({"event": "memory", "peak_memory_bytes": max(0, grown)})


def _timed(predictor: Predictor, batch: NDArray[np.float32] | Pixels) -> Callable[[], float]:
    """A call of the file on `batch`, which returns how many milliseconds it took."""

    def there() -> float:
        start = time.perf_counter()
        predictor.predict(batch)
        return _since_ms(start)

    if not isinstance(predictor, RemotePredictor):
        return there
    remote = predictor

    def elsewhere() -> float:
        remote.predict(batch)
        return remote.call_ms

    return elsewhere


def _answer_requests(
    call: Callable[[], float],
    load_ms: float,
    warmup: int,
    requests: Iterator[str],
    answer: Callable[[dict[str, Json]], None],
) -> None:
    first_ms = call()
    for _ in range(warmup - 1):
        call()
    _wait_until_idle()
    answer({"event": "ready", "load_ms": load_ms, "first_ms": first_ms})
    for request in requests:
        if request.strip() == END:
            break
        turn = Turn.from_text(request)
        call()
        warm_until = time.perf_counter() + _WARM_S
        while time.perf_counter() < warm_until:
            call()
        times: list[float] = []
        until = time.perf_counter() + turn.seconds
        while len(times) < turn.calls or time.perf_counter() < until:
            times.append(call())
        _wait_until_idle()
        answer({"event": "times", "times_ms": times})


def _since_ms(start: float) -> float:
    return (time.perf_counter() - start) * 1e3


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
