"""What an image costs a file in energy, by the machine's own meter."""

from __future__ import annotations

from edgeopt.measure.calls import END, OPEN, Turn
from edgeopt.measure.energy import Meter, energy_of
from edgeopt.plugins.energy_use import EnergyUse
from edgeopt.workers.worker import Worker


def energy_of_file(worker: Worker, meter: Meter, images: int, timeout_s: float) -> EnergyUse:
    """Lets the process of a file, see `edgeopt.measure.calls`, rest with the file open, and then call it without a
    pause, with `images` in a call.

    Raises what the process raises, and `MeterError` where the meter tells nothing of the calls.
    """

    def call(seconds: float) -> int:
        worker.ask(Turn(1, seconds).to_text())
        return images * len(worker.event(seconds + timeout_s)["times_ms"])

    worker.event(timeout_s)
    worker.ask(OPEN)
    worker.event(timeout_s)
    used = energy_of(meter, call)
    worker.ask(END)
    worker.event(timeout_s)
    return used
