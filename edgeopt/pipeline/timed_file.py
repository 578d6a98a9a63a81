"""A process that times one file, call by call as its parent asks: `python -m edgeopt.pipeline.timed_file JOB.json`; and
how the parent lets those of a run take turns.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edgeopt.json_values import from_text
from edgeopt.measure.energy import MeterError, find_meter
from edgeopt.options import MeasureSettings
from edgeopt.pipeline.energy import energy_of_file
from edgeopt.pipeline.job import HandedPlan, read_plan
from edgeopt.pipeline.results import Measured
from edgeopt.pipeline.timing import Timed, steps_of, time_files
from edgeopt.recipe.stage import PlannedExport, Stage
from edgeopt.workers.pool import Workers
from edgeopt.workers.process import Events, leave, requests_of_parent, work
from edgeopt.workers.store import Store
from edgeopt.workers.worker import Worker

if TYPE_CHECKING:  # rich is loaded when something is shown
    from edgeopt.workers.display import Display


@dataclass(frozen=True)
class TimingJob:
    """What a worker is to do: to time the file `number` of the plan that `plan`, a file, holds, on request."""

    module: ClassVar[str] = "edgeopt.pipeline.timed_file"

    plan: Path
    store: Path
    not_before: float
    number: int


def time_run(
    handed: HandedPlan, stage: Stage, planned: Sequence[PlannedExport], workers: Workers, display: Display
) -> Timed:
    """Times these files of a run, for its stage; see `time_files`."""
    settings, store = handed.plan.measure, handed.store
    numbers = {each.name: each.number for each in planned}

    def start(name: str, what: str = "latency") -> Worker:
        job = TimingJob(handed.file, store.root, store.not_before, numbers[name])
        return workers.start(job, f"{what}: {name}", settings.threads)

    with display.bar(stage.label, len(planned) * (steps_of(settings) + settings.energy_here)) as advance:
        timed = time_files(list(numbers), start, workers, settings, advance)
        return _metered(timed, start, workers, settings, advance) if settings.energy_here else timed


def _metered(
    timed: Timed,
    start: Callable[[str, str], Worker],
    workers: Workers,
    settings: MeasureSettings,
    advance: Callable[[str], None],
) -> Timed:
    """What was timed, with the energy of an image in each file, one file after the other."""
    try:
        meter = find_meter()
    except MeterError as error:  # it was there when the recipe was checked
        files = {name: replace(file, energy_problem=str(error)) for name, file in timed.measured.files.items()}
        return replace(timed, measured=Measured(files))
    files = {}
    for name, file in timed.measured.files.items():
        used = energy_of_file(start(name, "energy"), workers, meter, settings.batch_size, settings.timeout_s)
        files[name] = replace(file, energy_problem=used) if isinstance(used, str) else replace(file, energy=used)
        advance(name)
    return replace(timed, measured=Measured(files))


def main(events: Events) -> None:
    """Times the file that the command line's job names, see `edgeopt.measure.latency`."""
    job = from_text(TimingJob, Path(sys.argv[1]).read_text())
    plan = read_plan(job.plan)
    from edgeopt.measure.answers import feeder  # numpy
    from edgeopt.measure.latency import serve
    from edgeopt.networks.saved import load_outline
    from edgeopt.pipeline.stages import Workbench

    bench = Workbench(plan, Store(job.store, job.not_before, trusts=True), events)
    planned = plan.exports[job.number]
    settings = plan.measure
    outline = load_outline(bench.result(planned.program_stage).folder)
    test = bench.judged()
    pixels = test.pixels([image % len(test) for image in range(settings.batch_size)])
    feed = feeder(bench.results.export(planned).exported.input.holds, outline.preprocessing)
    serve(
        exporter=planned.use.plugin,
        file=bench.results.file(planned),
        batch=feed(pixels),
        threads=settings.threads,
        warmup=settings.warmup,
        requests=requests_of_parent(),
        answer=events.send,
    )


if __name__ == "__main__":
    leave(work(main))
