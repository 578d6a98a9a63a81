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
from edgeopt.bench.request import BenchRequest
from edgeopt.bench.sustained import pieces, sustained
from edgeopt.bench.table import Bench, BenchRow, PipelineTimes, SustainedRow, WholeRow
from edgeopt.bench.whole_way import WholeWayJob
from edgeopt.errors import Problem, UserError, WorkerError
from edgeopt.files import storage_errors, write_aside
from edgeopt.fingerprint import versions_of
from edgeopt.json_values import from_values
from edgeopt.measure.fed_file import FedFile
from edgeopt.measure.latency import Latency
from edgeopt.measure.timed_file import FileTimingJob
from edgeopt.options import MeasureSettings
from edgeopt.pipeline.results import MeasuredFile
from edgeopt.pipeline.timing import steps_of, time_files
from edgeopt.plugins.handed import hand_over
from edgeopt.plugins.registry import load_registry
from edgeopt.preprocessing import Preprocessing
from edgeopt.report.finished_files import FinishedFile, find_files
from edgeopt.report.latencies import LatencyPair
from edgeopt.report.machine import this_machine
from edgeopt.types import Role
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
    """What was measured, and the folder in which it lies."""

    bench: Bench
    folder: Path


def run_bench(request: BenchRequest, console: Console | None = None) -> BenchResult:
    """Times files as the request says, and writes `bench.json`, `bench.csv` and `bench.html`.

    A file that fails, or takes fewer images in a call, has a row that says so. Nothing is shown without a `console`.
    Raises `UserError` where there is nothing that can be timed.
    """
    registry = load_registry(request.plugin_files)
    catalogue = find_files(request.given, registry)
    if request.image and not request.image.is_file():
        raise UserError(Problem(f"--image {request.image}: there is no such file", "name an image, or leave it out"))
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
                hand_over(_fed(each, image.resolve()), handed[each.name], registry)
            work = _Work(request, catalogue.files, handed, workers, display)
            bench = Bench(
                edgeopt=__version__,
                runs=tuple(dict.fromkeys(each.run for each in catalogue.files)),
                environment=this_machine(_versions(catalogue.files)),
                protocol=request.settings.protocol,
                image=_described(request.image),
                rows=tuple(work.rows()),
                whole=tuple(work.whole()),
                sustained=tuple(work.sustained()),
                left_out=catalogue.left_out,
                finished=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        _write(bench, out)
    return BenchResult(bench, out)


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
        able = {batch: [each for each in self.files if _refusal(each, batch) is None] for _, batch in groups}
        steps = sum(len(able[batch]) * steps_of(self._settings(threads, batch)) for threads, batch in groups)
        with self._bar("latency", steps) as advance:
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
            error = _refusal(file, batch) or (str(timed.failures[file.name]) if file.name in timed.failures else None)
            yield _row(file, threads, batch, timed.measured.files, self.files, error)

    def _settings(self, threads: int, batch: int) -> MeasureSettings:
        return self.request.settings.model_copy(update={"threads": threads, "batch_size": batch})

    def _timing_job(self, file: FinishedFile, threads: int, batch: int) -> FileTimingJob:
        return FileTimingJob(self.handed[file.name], batch, threads, self.request.settings.warmup)

    # -- one file after the other

    def whole(self) -> Iterator[WholeRow]:
        """The whole way of one image through each file."""
        with self._bar("whole pipeline", len(self.files) * len(self.request.threads)) as advance:
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
        with self._bar("sustained", len(self.files) * len(self.request.threads) * len([*pieces(seconds)])) as advance:
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

    # -- both

    @contextmanager
    def _bar(self, label: str, total: int) -> Iterator[Callable[[str], None]]:
        self.display(label, {"event": "bar", "label": label, "total": total})
        try:
            yield lambda text: self.display(label, {"event": "advance", "steps": 1, "text": text})
        finally:
            self.display(label, {"event": "bar-end"})


def _row(
    file: FinishedFile,
    threads: int,
    batch: int,
    measured: Mapping[str, MeasuredFile],
    files: Sequence[FinishedFile],
    error: str | None,
) -> BenchRow:
    row, own = file.row, measured.get(file.name)
    speed = _speed(file, own.latency_ms, measured, files) if own else None
    return BenchRow(
        file=file.name,
        export=row.export,
        role=row.role,
        precision=row.precision,
        runtime=row.runtime,
        image_size=int(file.card.preprocessing["image_size"]),
        size_bytes=file.size_bytes,
        batch_size=batch,
        threads=threads,
        test_accuracy=row.test_accuracy,
        latency_ms=own.latency_ms if own else None,
        peak_memory_bytes=own.peak_memory_bytes if own else None,
        faster=speed.factor if speed else None,
        faster_is_noise=speed.within_noise if speed else False,
        error=error,
    )


def _speed(
    file: FinishedFile, latency: Latency, measured: Mapping[str, MeasuredFile], files: Sequence[FinishedFile]
) -> LatencyPair | None:
    """An optimized file against the float file of the same export and run, if both were timed in these turns."""
    beside = f"{file.name.rsplit('/', 2)[0]}/{Role.BASELINE}/"
    for other in files:
        named = any(name.startswith(beside) for name in (other.name, *other.again))
        if named and other is not file and other.name in measured:
            return LatencyPair(measured[other.name].latency_ms, latency)
    return None


def _refusal(file: FinishedFile, batch: int) -> str | None:
    """Why a file is not timed with so many images in a call, or None."""
    largest = file.card.input.shape[0] if file.card.input else 1
    if not isinstance(largest, int) or batch <= largest:
        return None
    images = "one image" if largest == 1 else f"{largest} images"
    return f"it takes at most {images} in a call; export it for more, see max_batch of its exporter"


def _fed(file: FinishedFile, image: Path) -> FedFile:
    holds = file.card.input.holds if file.card.input else "values"
    return FedFile(file.exporter, file.path, holds, Preprocessing.from_json(file.card.preprocessing), image)


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
