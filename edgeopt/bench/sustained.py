"""A file that is called for minutes without a pause, as a camera does: machines grow warm, and slower."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

from edgeopt.bench.table import Minute
from edgeopt.measure.calls import END, OPEN, Turn
from edgeopt.measure.energy import Meter, MinuteMeter
from edgeopt.measure.state import machine_state
from edgeopt.workers.worker import Worker

_MINUTE_S = 60.0


def pieces(seconds: float) -> Iterator[float]:
    """`seconds` as whole minutes and what is left, if that is at least a quarter of a minute or all there is."""
    whole, rest = divmod(seconds, _MINUTE_S)
    yield from [_MINUTE_S] * int(whole)
    if rest >= _MINUTE_S / 4 or (rest and not whole):
        yield rest


def sustained(
    worker: Worker, seconds: float, timeout_s: float, meter: Meter | None, advance: Callable[[], None]
) -> tuple[tuple[Minute, ...], str]:
    """Lets the process of a file, see `edgeopt.measure.calls`, call it for `seconds`; `advance` is told of each minute.

    Returns the minutes, and why the energy of some is not known though there is a `meter`. Raises what the process
    raises, and `MeterError` where the meter cannot be read at rest.
    """
    worker.event(timeout_s)
    worker.ask(OPEN)
    worker.event(timeout_s)
    metered = MinuteMeter.rested(meter) if meter else None
    minutes, passed = [], 0.0
    for piece in pieces(seconds):
        times_ms: list[float] = []

        def call(piece: float = piece, times_ms: list[float] = times_ms) -> int:
            worker.ask(Turn(1, piece).to_text())
            times_ms.extend(worker.event(piece + timeout_s)["times_ms"])
            return len(times_ms)

        energy_mj = None
        if metered is None:
            call()
        else:
            energy_mj = metered.of(piece, call)
        state = machine_state()
        passed += piece
        minutes.append(
            Minute(
                passed / _MINUTE_S,
                statistics.median(times_ms),
                len(times_ms),
                temperature_c=state.temperature_c,
                clock_mhz=state.clock_mhz,
                mj_per_image=energy_mj,
            )
        )
        advance()
    worker.ask(END)
    worker.event(timeout_s)
    return tuple(minutes), metered.problem if metered else ""
