"""Files of finished runs on this machine: a process for each, in turns, one place of the sweep after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.bench.image import MADE_SIZE
from edgeopt.bench.measured import Measured
from edgeopt.bench.operators import OperatorsJob
from edgeopt.bench.request import BenchRequest
from edgeopt.bench.rows import float_file, missing_row, row_of
from edgeopt.bench.sustained import pieces, sustained
from edgeopt.bench.sweep.make import Swept, SweptFile
from edgeopt.bench.sweep.there import MissingFile, files_there
from edgeopt.bench.sweep.wanted import Place, places
from edgeopt.bench.table import BenchRow, OperatorsRow, PipelineTimes, SustainedRow, WholeRow
from edgeopt.errors import EdgeoptError, UserError, WorkerError
from edgeopt.json_values import from_values
from edgeopt.measure.calls import END, OPEN
from edgeopt.measure.energy import Meter, MeterError
from edgeopt.measure.timed_file import FileTimingJob, WholeWayRuns
from edgeopt.options import MeasureSettings
from edgeopt.pipeline.energy import energy_of_file
from edgeopt.pipeline.timing import steps_of, time_files
from edgeopt.plugins.energy_use import EnergyUse
from edgeopt.plugins.operator_times import OperatorTime
from edgeopt.report.finished_files import FinishedFile
from edgeopt.workers.pool import Workers
from edgeopt.workers.worker import Worker

if TYPE_CHECKING:
    from edgeopt.workers.display import Display

WHOLE = WholeWayRuns(warmup=5, runs=50)
_MADE_IMAGE = "a JPEG of {} × {} px that edgeopt made".format(*MADE_SIZE)


@dataclass(frozen=True)
class LocalWork:
    """One benchmark of files on this machine."""

    request: BenchRequest
    files: Sequence[FinishedFile]
    swept: Swept
    handed: Mapping[Path, Path]
    workers: Workers
    display: Display
    meter: Meter | None = None
    untold: list[str] = field(default_factory=list)
    """Why energies are not known, a sentence each."""
    ways: dict[tuple[str, int], WholeRow] = field(default_factory=dict)
    """The whole ways that were taken already, by file and threads."""
    failed: list[EdgeoptError] = field(default_factory=list)
    """Why rows have no figures."""

    def run(self) -> Measured:
        """Times all files turn by turn, and lets one after the other do the rest.

        A file that fails, or could not be made, has rows that say so.
        """
        rows = tuple(self._rows())
        return Measured(
            image=self.request.image.name if self.request.image else _MADE_IMAGE,
            rows=rows,
            whole=tuple(self._whole_ways()),
            sustained=tuple(self._sustained_rows()),
            operators=tuple(self._operator_rows()),
            untold=tuple(self.untold),
            failures=tuple({str(each): each for each in self.failed}.values())
            if all(row.error for row in rows)
            else (),
        )

    # -- turn by turn

    def _rows(self) -> Iterator[BenchRow]:
        """All files at each place of the sweep."""
        groups = {place: files_there(self.files, self.swept, self.request, place) for place in places(self.request)}
        steps = sum(
            steps_of(self._settings(place.threads, place.batch)) * sum(isinstance(each, SweptFile) for each in group)
            for place, group in groups.items()
        )
        with self.display.bar("latency", steps) as advance:
            for place, group in groups.items():
                yield from self._group(group, place, advance)

    def _group(
        self, group: Sequence[SweptFile | MissingFile], place: Place, advance: Callable[[str], None]
    ) -> Iterator[BenchRow]:
        settings = self._settings(place.threads, place.batch)
        able = [each.file for each in group if isinstance(each, SweptFile)]
        own = {each.file.name for each in group if isinstance(each, SweptFile) and not each.made}
        jobs = {each.name: self._timing_job(each, place.threads, place.batch) for each in able}
        for name in own:
            if (name, place.threads) not in self.ways:
                jobs[name] = replace(jobs[name], whole=WHOLE)

        def finish(name: str, worker: Worker) -> None:
            if jobs[name].whole is None:
                self.workers.finish(worker, settings.timeout_s)
            else:
                self.ways[name, place.threads] = self._way(name, worker, place.threads)

        timed = time_files(
            [*jobs],
            lambda name: self.workers.start(jobs[name], f"latency: {name}", place.threads),
            self.workers,
            settings,
            advance,
            finish,
        )
        self.failed.extend(timed.failures.values())
        energies = self._energies(able, place) if place.batch == self.request.batches[0] else {}
        for each in group:
            if isinstance(each, MissingFile):
                self.failed.append(UserError(f"{each.file.name}: {each.reason}"))
                yield missing_row(each.file, place.threads, place.batch, place.size, each.reason)
                continue
            name = each.file.name
            error = str(timed.failures[name]) if name in timed.failures else None
            row = row_of(each.file, place.threads, place.batch, timed.measured.files, able, error, made=each.made)
            yield replace(row, energy=energies.get(name))

    def _energies(self, files: Sequence[FinishedFile], place: Place) -> dict[str, EnergyUse]:
        """What an image takes in each file, one after the other; nothing where that is not asked for."""
        found: dict[str, EnergyUse] = {}
        limit_s = self.request.settings.timeout_s
        for file in files if self.meter else ():
            assert self.meter is not None  # as was just asked
            job = self._timing_job(file, place.threads, place.batch)
            worker = self.workers.start(job, f"energy: {file.name}", place.threads)
            used = energy_of_file(worker, self.workers, self.meter, place.batch, limit_s)
            if isinstance(used, str):
                self.untold.append(f"the energy of {file.name} is not known: {used}")
            else:
                found[file.name] = used
        return found

    def _settings(self, threads: int, batch: int) -> MeasureSettings:
        return self.request.settings.model_copy(update={"threads": threads, "batch_size": batch})

    def _timing_job(self, file: FinishedFile, threads: int, batch: int) -> FileTimingJob:
        return FileTimingJob(self.handed[file.path], batch, threads, self.request.settings.warmup)

    # -- one file after the other

    def _whole_ways(self) -> Iterator[WholeRow]:
        """The whole way of one image through each file."""
        with self.display.bar("whole pipeline", len(self.files) * len(self.request.threads)) as advance:
            for threads in self.request.threads:
                for file in self.files:
                    yield self._whole(file, threads)
                    advance(file.name)

    def _whole(self, file: FinishedFile, threads: int) -> WholeRow:
        """The way that was taken right after the file was timed, or else one that is taken now."""
        if found := self.ways.get((file.name, threads)):
            return found
        job = replace(self._timing_job(file, threads, 1), whole=WHOLE)
        worker = self.workers.start(job, f"whole pipeline: {file.name}", threads)
        limit_s = self.request.settings.timeout_s
        try:
            worker.event(limit_s)
            for request in (OPEN, END):
                worker.ask(request)
                worker.event(limit_s)
        except (UserError, WorkerError) as error:
            self.workers.give_up(worker)
            return WholeRow(file=file.name, threads=threads, error=str(error))
        return self._way(file.name, worker, threads)

    def _way(self, name: str, worker: Worker, threads: int) -> WholeRow:
        """What the process of a file says of the whole way; it has nothing else to do."""
        limit_s = self.request.settings.timeout_s
        try:
            times = worker.event(limit_s)["times_ms"]
            self.workers.finish(worker, limit_s)
        except (UserError, WorkerError) as error:
            self.workers.give_up(worker)
            return WholeRow(file=name, threads=threads, error=str(error))
        return WholeRow(file=name, threads=threads, pipeline_ms=PipelineTimes.of(times))

    def _sustained_rows(self) -> Iterator[SustainedRow]:
        """Each file without a pause, for as long as was asked for."""
        seconds = self.request.sustained_s
        if not seconds:
            return
        with self.display.bar(
            "sustained", len(self.files) * len(self.request.threads) * len([*pieces(seconds)])
        ) as advance:
            for threads in self.request.threads:
                for file in self.files:
                    yield self._sustained(file, threads, seconds, advance)

    def _sustained(
        self, file: FinishedFile, threads: int, seconds: float, advance: Callable[[str], None]
    ) -> SustainedRow:
        limit_s = self.request.settings.timeout_s
        worker = self.workers.start(self._timing_job(file, threads, 1), f"sustained: {file.name}", threads)
        try:
            minutes, problem = sustained(worker, seconds, limit_s, self.meter, lambda: advance(file.name))
            self.workers.finish(worker, limit_s)
        except (UserError, WorkerError, MeterError) as error:
            self.workers.give_up(worker)
            return SustainedRow(file=file.name, threads=threads, error=str(error))
        if problem:
            self.untold.append(f"the energy of {file.name} without a pause is not known: {problem}")
        return SustainedRow(file=file.name, threads=threads, minutes=minutes)

    def _operator_rows(self) -> Iterator[OperatorsRow]:
        """What each operator of each file takes, where its runtime tells."""
        if not self.request.operators:
            return
        with self.display.bar("operators", len(self.files) * len(self.request.threads)) as advance:
            for threads in self.request.threads:
                for file in self.files:
                    yield self._operators(file, threads)
                    advance(file.name)

    def _operators(self, file: FinishedFile, threads: int) -> OperatorsRow:
        if file.exporter.operator_times is None:
            error = f"{file.row.runtime} does not tell what its operators take"
            return OperatorsRow(file=file.name, threads=threads, error=error)
        settings = self.request.settings
        job = OperatorsJob(self.handed[file.path], threads, settings.warmup, settings.runs)
        worker = self.workers.start(job, f"operators: {file.name}", threads)
        try:
            event = worker.event(settings.timeout_s)
            self.workers.finish(worker, settings.timeout_s)
        except (UserError, WorkerError) as error:
            self.workers.give_up(worker)
            return OperatorsRow(file=file.name, threads=threads, error=str(error))
        operators = tuple(from_values(OperatorTime, each) for each in event["operators"])
        beside = float_file(file, self.files)
        return OperatorsRow(
            file=file.name, threads=threads, operators=operators, float_file=beside.name if beside else None
        )
