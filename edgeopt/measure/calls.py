"""An open file that is called in turns, as its parent asks, and timed.

This module goes to devices as it is, with `edgeopt.plugins.predictor`: both import the standard library alone.
"""

from __future__ import annotations

import gc
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgeopt.plugins.predictor import RemotePredictor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

OPEN, END = "open", "end"
"""Requests beside turns: to open the file, and that nothing more will be asked."""

_WARM_S = 0.02  # of calls that do not count, at the start of a turn: the file before it has taken the caches
_LOOK_S = 0.005  # between two looks at the processor time that this process takes
_IDLE_SHARE = 0.1
_MAX_WAIT_S = 0.5


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


class Called(Protocol):
    """An open file, as far as calls go."""

    def predict(self, batch: Any) -> Any: ...


def answer_turns(
    opened: Callable[[], AbstractContextManager[Called]],
    batch: Any,
    warmup: int,
    requests: Iterator[str],
    answer: Callable[[dict[str, Any]], None],
    modules: Iterable[str] = (),
    afterwards: Callable[[Any], None] | None = None,
) -> None:
    """Opens a file when it is asked to, and answers each request, a `Turn`, with the times of its calls in ms; at the
    end with the peak memory.

    Before it is asked, `modules` are imported, so that files open one after the other and each in peace. `batch` is
    what the file takes in a call. `afterwards` is called with the open file when all of this is answered: what it does
    is in neither times nor memory.
    """
    for module in modules:
        import_module(module)  # so that the memory below is the file's own, not the runtime's code
    answer({"event": "here"})
    if next(requests).strip() != OPEN:
        return
    gc.collect()
    before = _resident_bytes()
    _reset_peak()
    start = time.perf_counter()
    with opened() as file:
        load_ms = file.load_ms if isinstance(file, RemotePredictor) else _since_ms(start)
        _answer_requests(_timed(file, batch), load_ms, warmup, requests, answer)
        grown = file.peak_memory_bytes() if isinstance(file, RemotePredictor) else _peak_bytes() - before
        answer({"event": "memory", "peak_memory_bytes": max(0, grown)})
        if afterwards is not None:
            afterwards(file)


def _timed(file: Called, batch: Any) -> Callable[[], float]:
    """A call of the file on `batch`, which returns how many milliseconds it took."""

    def there() -> float:
        start = time.perf_counter()
        file.predict(batch)
        return _since_ms(start)

    if not isinstance(file, RemotePredictor):
        return there
    remote = file

    def elsewhere() -> float:
        remote.predict(batch)
        return remote.call_ms

    return elsewhere


def _answer_requests(
    call: Callable[[], float],
    load_ms: float,
    warmup: int,
    requests: Iterator[str],
    answer: Callable[[dict[str, Any]], None],
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
