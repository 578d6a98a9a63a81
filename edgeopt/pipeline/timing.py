"""Latency and memory of a run's files, as the parent process takes them: one process a file, which work in turns.

A file that crashes or hangs while it is timed is given up, and the others are timed without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from edgeopt.errors import EdgeoptError, UserError, WorkerError
from edgeopt.measure.calls import END, OPEN, Turn
from edgeopt.measure.latency import Start, summarize, turns
from edgeopt.options import MeasureSettings
from edgeopt.pipeline.results import Measured, MeasuredFile
from edgeopt.workers.pool import Workers
from edgeopt.workers.worker import Worker


@dataclass(frozen=True)
class Timed:
    """What was measured, and why the other files could not be, by the name of the export."""

    measured: Measured
    failures: Mapping[str, EdgeoptError] = field(default_factory=dict)


def steps_of(settings: MeasureSettings) -> int:
    """How often `time_files` tells of one file: when it is here, when it is open, after each turn, and at its end."""
    return len(turns(settings)) + 3


def time_files(
    names: list[str],
    start: Callable[[str], Worker],
    workers: Workers,
    settings: MeasureSettings,
    advance: Callable[[str], None],
    finish: Callable[[str, Worker], None] | None = None,
) -> Timed:
    """Times the files `names`: `start` gives the process of one, and `advance` is told of each step by its name.

    Every file is loaded, one after the other, and warm before the first call that counts. No answer is waited for
    longer than `settings.timeout_s` beyond the time that its turn takes at least. `finish` ends the process of a file
    that has answered all, where more is to be had of it than that; it does not raise.
    """
    processes: dict[str, Worker] = {}
    times: dict[str, list[list[float]]] = {name: [] for name in names}
    starts: dict[str, Start] = {}
    memory: dict[str, int] = {}
    failures: dict[str, EdgeoptError] = {}

    def each(step: Callable[[str, Worker], None]) -> None:
        for name in [name for name in names if name not in failures]:
            try:
                step(name, processes[name])
            except (UserError, WorkerError) as error:
                failures[name] = error
                workers.give_up(processes[name])
            advance(name)

    def here(_name: str, worker: Worker) -> None:
        worker.event(settings.timeout_s)

    def ready(name: str, worker: Worker) -> None:
        worker.ask(OPEN)
        event = worker.event(settings.timeout_s)
        starts[name] = Start(event["load_ms"], event["first_ms"])

    def end(name: str, worker: Worker) -> None:
        worker.ask(END)
        memory[name] = worker.event(settings.timeout_s)["peak_memory_bytes"]
        if finish is None:
            workers.finish(worker, settings.timeout_s)
        else:
            finish(name, worker)

    for name in names:
        processes[name] = start(name)
    each(here)
    each(ready)
    for dealt in turns(settings):

        def turn(name: str, worker: Worker, dealt: Turn = dealt) -> None:
            worker.ask(dealt.to_text())
            times[name].append(worker.event(settings.timeout_s + dealt.seconds)["times_ms"])

        each(turn)
    each(end)
    files = {
        name: MeasuredFile(summarize(values, settings, starts[name]), memory[name])
        for name, values in times.items()
        if name not in failures
    }
    return Timed(Measured(files), failures)
