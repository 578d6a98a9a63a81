"""A row of a benchmark, from what was measured of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeopt.bench.table import BenchRow, DeviceAnswers
from edgeopt.measure.fed_file import FedFile
from edgeopt.measure.latency import Latency
from edgeopt.pipeline.results import MeasuredFile
from edgeopt.preprocessing import Preprocessing
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
        image_size=int(file.card.preprocessing["image_size"]),
        size_bytes=file.size_bytes,
        batch_size=batch,
        threads=threads,
        test_accuracy=answers.test_accuracy if answers else row.test_accuracy if not device else None,
        latency_ms=own.latency_ms if own else None,
        peak_memory_bytes=own.peak_memory_bytes or None if own else None,  # 0 where nobody tells it
        faster=speed.factor if speed else None,
        faster_is_noise=speed.within_noise if speed else False,
        error=error,
        device=device,
        answers=answers,
        note=note,
    )


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
    largest = file.card.input.shape[0] if file.card.input else 1
    if not isinstance(largest, int) or batch <= largest:
        return None
    images = "one image" if largest == 1 else f"{largest} images"
    return f"it takes at most {images} in a call; export it for more, see max_batch of its exporter"


def fed(file: FinishedFile, image: Path | None = None) -> FedFile:
    """A file with what it is fed, as its card says."""
    return FedFile(file.exporter, file.path, holds(file), Preprocessing.from_json(file.card.preprocessing), image)


def holds(file: FinishedFile) -> str:
    """What a file's input holds, "values" or "pixels"."""
    return file.card.input.holds if file.card.input else "values"
