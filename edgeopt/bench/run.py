"""Benchmarks finished files: a process for each file, in turns, one number of images and of threads after the other."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt._version import __version__
from edgeopt.bench.image import MADE_SIZE, make_image
from edgeopt.bench.on_devices import DeviceWork, OnDevices, named_devices
from edgeopt.bench.operators import OperatorsJob
from edgeopt.bench.request import BenchRequest
from edgeopt.bench.rows import fed, float_file, refusal, row_of
from edgeopt.bench.sustained import pieces, sustained
from edgeopt.bench.table import Bench, BenchRow, OperatorsRow, PipelineTimes, SustainedRow, WholeRow
from edgeopt.bench.whole_way import WholeWayJob
from edgeopt.errors import Problem, UserError, WorkerError
from edgeopt.files import storage_errors, write_aside
from edgeopt.fingerprint import versions_of
from edgeopt.json_values import from_values
from edgeopt.measure.timed_file import FileTimingJob
from edgeopt.options import MeasureSettings
from edgeopt.pipeline.timing import steps_of, time_files
from edgeopt.plugins.handed import hand_over
from edgeopt.plugins.operator_times import OperatorTime
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.devices import chosen
from edgeopt.report.finished_files import FinishedFile, find_files
from edgeopt.report.machine import this_machine
from edgeopt.workers.pool import Workers

if TYPE_CHECKING:  # rich is loaded when something is shown
    from rich.console import Console

    from edgeopt.workers.display import Display

FOLDER = "bench"
"""Where below a run its benchmark lies."""
JSON, CSV, PAGE = "bench.json", "bench.csv", "bench.html"

_WHOLE_RUNS, _WHOLE_WARMUP = 50, 5


@dataclass(frozen=True)
class BenchResult:
    """What was measured, the folder in which it lies, and what was wrong with devices that were not measured."""

    bench: Bench
    folder: Path
    failures: tuple[Problem, ...] = ()


def run_bench(request: BenchRequest, console: Console | None = None) -> BenchResult:
    """Times files as the request says, and writes `bench.json`, `bench.csv` and `bench.html`.

    A file that fails, or takes fewer images in a call, has a row that says so. Nothing is shown without a `console`.
    Raises `UserError` where there is nothing that can be timed.
    """
    registry = load_registry(request.plugin_files)
    catalogue = find_files(request.given, registry)
    if request.image and not request.image.is_file():
        raise UserError(Problem(f"--image {request.image}: there is no such file", "name an image, or leave it out"))
    wanted = chosen(named_devices(request, catalogue.files, registry), request.devices) if request.devices else {}
    out = request.out or catalogue.files[0].folder / FOLDER
    from rich.console import Console  # shown things are loaded only when there is something to show

    from edgeopt.workers.display import Display

    with storage_errors(out), tempfile.TemporaryDirectory(prefix="edgeopt-bench-") as aside:
        out.mkdir(parents=True, exist_ok=True)
        image = request.image or Path(aside) / "image.jpg"
        if request.image is None:
            make_image(image)
        with (
            Display(console or Console(quiet=True)) as display,
            Workers(Path(aside) / "jobs", out / "log.txt", display) as workers,
        ):
            handed = {}
            for number, each in enumerate(catalogue.files):
                handed[each.name] = workers.folder / f"file-{number}.pickle"
                hand_over(fed(each, image.resolve()), handed[each.name], registry)
            work = _Work(request, catalogue.files, handed, workers, display)
            devices = OnDevices()
            if wanted:
                asked = DeviceWork(request, wanted, catalogue.files, handed, registry, Path(aside), work.bar)
                devices = asked.run()
            bench = Bench(
                edgeopt=__version__,
                runs=tuple(dict.fromkeys(each.run for each in catalogue.files)),
                environment=this_machine(_versions(catalogue.files)),
                protocol=request.settings.protocol,
                image=devices.image if wanted else _described(request.image),
                rows=devices.rows if wanted else tuple(work.rows()),
                whole=() if wanted else tuple(work.whole()),
                sustained=devices.sustained if wanted else tuple(work.sustained()),
                operators=() if wanted else tuple(work.operators()),
                devices=devices.devices,
                verdicts=devices.verdicts,
                left_out=catalogue.left_out,
                finished=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        _write(bench, out)
    return BenchResult(bench, out, devices.failures)


@dataclass(frozen=True)
class _Work:
    """One benchmark on its way."""

    request: BenchRequest
    files: Sequence[FinishedFile]
    handed: Mapping[str, Path]
    workers: Workers
    display: Display

    # -- turn by turn

    def rows(self) -> Iterator[BenchRow]:
        """All files with each number of threads and of images in a call."""
        groups = [(threads, batch) for threads in self.request.threads for batch in self.request.batches]
        able = {batch: [each for each in self.files if refusal(each, batch) is None] for _, batch in groups}
        steps = sum(len(able[batch]) * steps_of(self._settings(threads, batch)) for threads, batch in groups)
        with self.bar("latency", steps) as advance:
            for threads, batch in groups:
                yield from self._group(able[batch], threads, batch, advance)

    def _group(
        self, able: Sequence[FinishedFile], threads: int, batch: int, advance: Callable[[str], None]
    ) -> Iterator[BenchRow]:
        settings = self._settings(threads, batch)
        jobs = {each.name: self._timing_job(each, threads, batch) for each in able}
        timed = time_files(
            [*jobs],
            lambda name: self.workers.start(jobs[name], f"latency: {name}", threads),
            self.workers,
            settings,
            advance,
        )
        for file in self.files:
            error = refusal(file, batch) or (str(timed.failures[file.name]) if file.name in timed.failures else None)
            yield row_of(file, threads, batch, timed.measured.files, self.files, error)

    def _settings(self, threads: int, batch: int) -> MeasureSettings:
        return self.request.settings.model_copy(update={"threads": threads, "batch_size": batch})

    def _timing_job(self, file: FinishedFile, threads: int, batch: int) -> FileTimingJob:
        return FileTimingJob(self.handed[file.name], batch, threads, self.request.settings.warmup)

    # -- one file after the other

    def whole(self) -> Iterator[WholeRow]:
        """The whole way of one image through each file."""
        with self.bar("whole pipeline", len(self.files) * len(self.request.threads)) as advance:
            for threads in self.request.threads:
                for file in self.files:
                    yield self._whole(file, threads)
                    advance(file.name)

    def _whole(self, file: FinishedFile, threads: int) -> WholeRow:
        job = WholeWayJob(self.handed[file.name], threads, _WHOLE_WARMUP, _WHOLE_RUNS)
        worker = self.workers.start(job, f"whole pipeline: {file.name}", threads)
        try:
            event = worker.event(self.request.settings.timeout_s)
            self.workers.finish(worker, self.request.settings.timeout_s)
        except (UserError, WorkerError) as error:
            self.workers.give_up(worker)
            return WholeRow(file=file.name, threads=threads, error=str(error))
        return WholeRow(file=file.name, threads=threads, pipeline_ms=from_values(PipelineTimes, event["times"]))

    def sustained(self) -> Iterator[SustainedRow]:
        """Each file without a pause, for as long as was asked for."""
        seconds = self.request.sustained_s
        if not seconds:
            return
        with self.bar("sustained", len(self.files) * len(self.request.threads) * len([*pieces(seconds)])) as advance:
            for threads in self.request.threads:
                for file in self.files:
                    yield self._sustained(file, threads, seconds, advance)

    def _sustained(
        self, file: FinishedFile, threads: int, seconds: float, advance: Callable[[str], None]
    ) -> SustainedRow:
        limit_s = self.request.settings.timeout_s
        worker = self.workers.start(self._timing_job(file, threads, 1), f"sustained: {file.name}", threads)
        try:
            minutes = sustained(worker, seconds, limit_s, lambda: advance(file.name))
            self.workers.finish(worker, limit_s)
        except (UserError, WorkerError) as error:
            self.workers.give_up(worker)
            return SustainedRow(file=file.name, threads=threads, error=str(error))
        return SustainedRow(file=file.name, threads=threads, minutes=minutes)

    def operators(self) -> Iterator[OperatorsRow]:
        """What each operator of each file takes, where its runtime tells."""
        if not self.request.operators:
            return
        with self.bar("operators", len(self.files) * len(self.request.threads)) as advance:
            for threads in self.request.threads:
                for file in self.files:
                    yield self._operators(file, threads)
                    advance(file.name)

    def _operators(self, file: FinishedFile, threads: int) -> OperatorsRow:
        if file.exporter.operator_times is None:
            error = f"{file.row.runtime} does not tell what its operators take"
            return OperatorsRow(file=file.name, threads=threads, error=error)
        settings = self.request.settings
        job = OperatorsJob(self.handed[file.name], threads, settings.warmup, settings.runs)
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

    # -- both

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[str], None]]:
        """A bar with so many steps, each told with a few words."""
        self.display(label, {"event": "bar", "label": label, "total": total})
        try:
            yield lambda text: self.display(label, {"event": "advance", "steps": 1, "text": text})
        finally:
            self.display(label, {"event": "bar-end"})


def _described(image: Path | None) -> str:
    if image is None:
        return "a JPEG of {} × {} px that edgeopt made".format(*MADE_SIZE)
    return image.name


def _versions(files: Sequence[FinishedFile]) -> dict[str, str]:
    return versions_of({"numpy", "pillow", *(name for each in files for name in each.exporter.requires)})


def _write(bench: Bench, out: Path) -> None:
    from edgeopt.bench.page import render_page  # matplotlib and jinja2

    write_aside(out / JSON, bench.to_json())
    write_aside(out / CSV, bench.to_csv())
    write_aside(out / PAGE, render_page(bench))
