"""Latency of the files of several runs, turn by turn in one family of processes on this machine: one process a file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.comparison.runs import ReadRun
from edgeopt.errors import EdgeoptError, Location, Problem, UserError, first_line
from edgeopt.fingerprint import file_digest
from edgeopt.measure.fed_file import FedFile
from edgeopt.measure.latency import Latency
from edgeopt.measure.timed_file import FileTimingJob
from edgeopt.options import MeasureSettings
from edgeopt.pipeline.timing import steps_of, time_files
from edgeopt.plugins.declarations import ExporterPlugin
from edgeopt.plugins.handed import hand_over
from edgeopt.plugins.registry import Registry, missing_problem
from edgeopt.preprocessing import Preprocessing
from edgeopt.report.finished_files import exporter_name
from edgeopt.report.schema import Row
from edgeopt.workers.pool import Workers
from edgeopt.workers.worker import Worker

if TYPE_CHECKING:  # rich is loaded when something is shown
    from rich.console import Console

_FEWEST_TURNS = 5  # of fewer, nothing tells noise from a difference

Key = tuple[int, str]
"""A file: the number of its run, and its path below that run's folder."""


@dataclass(frozen=True)
class TimedTogether:
    """Latency of each file that was timed, and why the others were not."""

    latencies: Mapping[Key, Latency]
    memory: Mapping[Key, int]
    failures: Mapping[Key, str] = field(default_factory=dict)


def require_timeable(runs: Sequence[ReadRun], registry: Registry) -> None:
    """Raises `UserError` with everything for which files of the runs cannot be timed together: calls of different
    sizes, a file that is gone or changed, a plugin that is not here.
    """
    problems = [problem for run in runs for row in _timed_rows(run) for problem in _problems(run, row, registry)]
    called = {run.title: (_settings(run).threads, _settings(run).batch_size) for run in runs}
    if len(set(called.values())) > 1:
        told = "; ".join(f"{title}: threads = {each[0]}, batch_size = {each[1]}" for title, each in called.items())
        hint = "write both alike in [measure] and run again: files answer in calls of that size"
        problems.append(Problem(f"the runs call their files differently ({told})", hint))
    if problems:
        raise UserError(*dict.fromkeys(problems))


def time_together(runs: Sequence[ReadRun], registry: Registry, console: Console | None) -> TimedTogether:
    """Times all files of all runs that can run here, in turns, partners beside each other.

    Threads, calls and turns are those of the first run's `[measure]`. Every file is fed with the same generated images,
    brought to its size: what a call takes does not depend on what they show.
    """
    settings = _settings(runs[0])
    files = dict(_fed_files(runs, registry))
    names = {f"{runs[number].title}: {file}": (number, file) for number, file in files}
    places = {name: place for place, name in enumerate(names)}
    from rich.console import Console  # shown things are loaded only when there is something to show

    from edgeopt.workers.display import Display

    with tempfile.TemporaryDirectory(prefix="edgeopt-compare-") as folder:
        log = Path(folder) / "log.txt"
        with (
            Display(console or Console(quiet=True)) as display,
            Workers(Path(folder) / "jobs", log, display) as workers,
        ):
            steps = len(files) * steps_of(settings)

            def start(name: str) -> Worker:
                handed = workers.folder / f"{places[name]}.pickle"
                hand_over(files[names[name]], handed, registry)
                job = FileTimingJob(handed, settings.batch_size, settings.threads, settings.warmup)
                return workers.start(job, f"latency: {name}", settings.threads)

            with display.bar("latency, all runs in turns", steps) as advance:
                timed = time_files(list(names), start, workers, settings, advance)
        failures = {names[name]: _reason(error) for name, error in timed.failures.items()}
    measured = {names[name]: each for name, each in timed.measured.files.items()}
    return TimedTogether(
        {key: each.latency_ms for key, each in measured.items()},
        {key: each.peak_memory_bytes for key, each in measured.items()},
        failures | {(number, row.file): reason for number, run in enumerate(runs) for row, reason in _left_out(run)},
    )


def _settings(run: ReadRun) -> MeasureSettings:
    """How a run's files are called; in enough turns to tell noise from a difference."""
    try:
        settings = MeasureSettings.model_validate(run.lock.recipe.get("measure", {}))
    except ValueError as error:
        hint = "run its recipe again with this version of edgeopt"
        raise UserError(
            Problem(f"its [measure] cannot be read: {first_line(error)}", hint, Location(run.lock.file))
        ) from error
    return settings.model_copy(update={"rounds": max(settings.rounds, _FEWEST_TURNS)})


def _timed_rows(run: ReadRun) -> Iterator[Row]:
    """The files that this machine may be able to run."""
    return (row for row in run.report.rows if not (row.error or row.not_run or row.stand_in or row.input is None))


def _left_out(run: ReadRun) -> Iterator[tuple[Row, str]]:
    for row in run.report.rows:
        if row.not_run or row.stand_in:
            yield row, row.not_run or f"{row.stand_in} answered in its place"


def _problems(run: ReadRun, row: Row, registry: Registry) -> Iterator[Problem]:
    try:
        if problem := missing_problem(registry.get(ExporterPlugin, exporter_name(row, run.report))):
            yield problem
    except UserError as error:
        yield from error.problems
    folder = row.file.rpartition("/")[0]
    parts: dict[str, str | None] = {
        name: digest for name, digest in run.lock.parts.items() if name.rpartition("/")[0] == folder
    }
    for name, digest in (parts or {row.file: run.lock.artifacts.get(row.file)}).items():
        file = run.folder / name
        if not file.is_file():
            yield Problem(f"{file} is gone", "run its recipe again: it is put there from the store")
        elif digest is not None and file_digest(file) != digest:
            yield Problem(f"{file} is not the file that the run made", "delete it and run its recipe again")


def _fed_files(runs: Sequence[ReadRun], registry: Registry) -> Iterator[tuple[Key, FedFile]]:
    """What each worker opens; partners follow each other, so that their turns do."""
    rows = [(number, run, row) for number, run in enumerate(runs) for row in _timed_rows(run)]
    order = {key: place for place, key in enumerate(dict.fromkeys((row.export, row.role) for _, _, row in rows))}
    for number, run, row in sorted(rows, key=lambda each: (order[each[2].export, each[2].role], each[0])):
        assert row.input is not None  # of the rows that are timed
        exporter = registry.get(ExporterPlugin, exporter_name(row, run.report))
        preprocessing = Preprocessing.from_json(run.report.dataset.preprocessing)
        yield (number, row.file), FedFile(exporter, run.file(row).resolve(), row.input.holds, preprocessing)


def _reason(error: EdgeoptError) -> str:
    return error.problems[0].message if isinstance(error, UserError) else first_line(error)
