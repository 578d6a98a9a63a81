"""A row of a benchmark, from what was measured of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from edgeopt.arrays import ImageSize
from edgeopt.bench.table import BenchRow, MadeFile
from edgeopt.errors import EdgeoptError, UserError
from edgeopt.measure.fed_file import FedFile
from edgeopt.measure.latency import Latency
from edgeopt.measure.on_device import DeviceAnswers, refused
from edgeopt.pipeline.results import MeasuredFile
from edgeopt.plugins.registry import Registry
from edgeopt.preprocessing import Preprocessing
from edgeopt.recipe.card_task import task_of_card
from edgeopt.report.finished_files import FinishedFile
from edgeopt.report.latencies import LatencyPair
from edgeopt.types import Role


def row_of(
    file: FinishedFile,
    threads: int,
    batch: int,
    measured: Mapping[str, MeasuredFile],
    files: Sequence[FinishedFile],
    error: str | None,
    *,
    device: str = "",
    answers: DeviceAnswers | None = None,
    note: str | None = None,
    made: MadeFile | None = None,
) -> BenchRow:
    """The row of one file with so many threads and images; `measured` are the files of the same turns by name."""
    row, own = file.row, measured.get(file.name)
    speed = _speed(file, own.latency_ms, measured, files) if own else None
    return BenchRow(
        file=file.name,
        export=row.export,
        role=row.role,
        precision=row.precision,
        runtime=row.runtime,
        image_size=image_size_of(file),
        size_bytes=file.size_bytes,
        batch_size=batch,
        threads=threads,
        test_accuracy=answers.test_accuracy if answers else row.test_accuracy if not device else None,
        accuracy_interval=row.accuracy_interval if not device else None,
        score=answers.score if answers else row.score if not device else None,
        latency_ms=own.latency_ms if own else None,
        peak_memory_bytes=own.peak_memory_bytes or None if own else None,  # 0 where nobody tells it
        faster=speed.factor if speed else None,
        faster_is_noise=speed.within_noise if speed else False,
        error=error,
        device=device,
        answers=answers,
        note=note,
        made=made,
    )


def said(error: EdgeoptError) -> str:
    """An error in one line, with what to do."""
    problems = error.problems if isinstance(error, UserError) else ()
    told = (f"{each.message} ({each.hint})" if each.hint else each.message for each in problems)
    return "; ".join(told) or str(error)


def missing_row(file: FinishedFile, threads: int, batch: int, size: ImageSize | None, reason: str) -> BenchRow:
    """The row of a file that could not be made; where that was to take other images, nothing of the run's own file
    holds for it.
    """
    row = row_of(file, threads, batch, {}, (), reason)
    return (
        row
        if size is None
        else replace(row, image_size=size, size_bytes=None, test_accuracy=None, accuracy_interval=None, score=None)
    )


def image_size_of(file: FinishedFile) -> ImageSize:
    """The size of the images that a file takes, px."""
    return Preprocessing.from_json(file.card.preprocessing).image_size


def _speed(
    file: FinishedFile, latency: Latency, measured: Mapping[str, MeasuredFile], files: Sequence[FinishedFile]
) -> LatencyPair | None:
    """An optimized file against the float file of the same export and run, if both were timed in these turns."""
    other = float_file(file, files)
    return LatencyPair(measured[other.name].latency_ms, latency) if other and other.name in measured else None


def float_file(file: FinishedFile, files: Sequence[FinishedFile]) -> FinishedFile | None:
    """The float file of the same export and run, if there is one beside `file`."""
    beside = f"{file.name.rsplit('/', 2)[0]}/{Role.BASELINE}/"
    named = (each for each in files if any(name.startswith(beside) for name in (each.name, *each.again)))
    return next((each for each in named if each is not file), None)


def refusal(file: FinishedFile, batch: int) -> str | None:
    """Why a file is not timed with so many images in a call, or None."""
    return refused(file.card.input, batch)


def fed(file: FinishedFile, registry: Registry, image: Path | None = None) -> FedFile:
    """A file with what it is fed and for what it is, as its card says.

    Raises `UserError` where no plugin here has its task.
    """
    preprocessing, task = Preprocessing.from_json(file.card.preprocessing), task_of_card(file.card, registry, file.name)
    return FedFile(file.exporter, file.path, holds(file), preprocessing, image, task)


def holds(file: FinishedFile) -> str:
    """What a file's input holds, "values" or "pixels"."""
    return file.card.input.holds if file.card.input else "values"
