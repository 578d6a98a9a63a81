"""What an image costs a file in energy, by the machine's own meter."""

from __future__ import annotations

from edgeopt.errors import UserError, WorkerError
from edgeopt.measure.calls import END, OPEN, Turn
from edgeopt.measure.energy import Meter, MeterError, energy_of
from edgeopt.plugins.energy_use import EnergyUse
from edgeopt.workers.pool import Workers
from edgeopt.workers.worker import Worker


def energy_of_file(
    worker: Worker, workers: Workers, meter: Meter, batch_size: int, timeout_s: float
) -> EnergyUse | str:
    """Lets the process of a file, see `edgeopt.measure.calls`, rest with the file open, call it without a pause with
    `batch_size` images in a call, and end; or why nothing is known of the file.
    """

    def call(seconds: float) -> int:
        worker.ask(Turn(1, seconds).to_text())
        return batch_size * len(worker.event(seconds + timeout_s)["times_ms"])

    try:
        worker.event(timeout_s)
        worker.ask(OPEN)
        worker.event(timeout_s)
        used = energy_of(meter, call)
        worker.ask(END)
        worker.event(timeout_s)
        workers.finish(worker, timeout_s)
    except (UserError, WorkerError, MeterError) as error:
        workers.give_up(worker)
        return str(error)
    return used
