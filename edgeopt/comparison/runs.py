"""The folders of runs, read whole; everything that is wrong with any of them is found at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from edgeopt.comparison.machine import device
from edgeopt.comparison.schema import ComparedRun, Device
from edgeopt.errors import Location, Problem, UserError, printable
from edgeopt.files import where_looked
from edgeopt.pipeline import lock
from edgeopt.pipeline.record import FILE as RECORD
from edgeopt.pipeline.record import read_record
from edgeopt.report.kept_answers import KeptAnswers
from edgeopt.report.reading import read_report
from edgeopt.report.schema import Report, Row

T = TypeVar("T")

_NAME_A_RUN = "name the folder of a finished run, such as runs/NAME"
_LISTED = 6


@dataclass(frozen=True, eq=False)
class ReadRun:
    """A finished run. `answers` is None where it was made by an edgeopt that did not keep them."""

    folder: Path
    title: str
    report: Report
    lock: lock.Lock
    answers: KeptAnswers | None

    @property
    def said(self) -> ComparedRun:
        """The run as a comparison shows it."""
        report = self.report
        return ComparedRun(
            folder=printable(str(self.folder)),
            title=self.title,
            recipe=report.recipe.name,
            edgeopt=report.edgeopt,
            dataset=report.dataset.name,
            fingerprint=report.dataset.fingerprint,
            test_images=report.dataset.splits.get("test", 0),
            device=self.device,
            finished=report.finished,
            smoke=report.smoke,
        )

    @property
    def device(self) -> Device:
        """The machine that it measured on."""
        return device(self.report.environment)

    def file(self, row: Row) -> Path:
        """Where the file of a row is."""
        return self.folder / row.file


def read_runs(folders: Sequence[Path]) -> tuple[ReadRun, ...]:
    """The runs in `folders`, the first of which is what the others are held against.

    Raises `UserError` with every problem of all of them: no run, one that has not ended, one of another version, the
    same one twice, and fewer than two.
    """
    chosen = [folder.parent if folder.name == "report.json" else folder for folder in folders]
    problems = list(_twice(chosen))
    runs = []
    for folder, title in zip(chosen, _titles(chosen), strict=True):
        try:
            runs.append(_read(folder, title))
        except UserError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    if len(chosen) < 2:
        problems.append(Problem("there is nothing to compare with", "name two runs or more, the first the older one"))
    if problems:
        raise UserError(*problems)
    return tuple(runs)


def _twice(folders: Sequence[Path]) -> Iterator[Problem]:
    seen: dict[Path, Path] = {}
    for folder in folders:
        place = folder.resolve()
        if place in seen:
            yield Problem(
                f"{folder} is the same run as {seen[place]}" if folder != seen[place] else f"{folder} is named twice",
                "compare different runs; a run that is made again under its name replaces the one before: "
                "give it another with --set name=NAME",
            )
        seen.setdefault(place, folder)


def _titles(folders: Sequence[Path]) -> list[str]:
    """What each run is called: the last part of its path, or as much of it as tells the runs apart."""
    places = [folder.resolve() for folder in folders]
    for parts in range(1, max((len(place.parts) for place in places), default=0) + 1):
        titles = ["/".join(place.parts[-parts:]) for place in places]
        if len(set(titles)) == len(set(places)):
            return [printable(title) for title in titles]
    return [printable(str(place)) for place in places]


def _read(folder: Path, title: str) -> ReadRun:
    _require_run(folder)
    problems: list[Problem] = []
    report = _noted(problems, lambda: read_report(folder))
    held = _noted(problems, lambda: _lock(folder / lock.FILE))
    kept = _noted(problems, lambda: _answers(folder / "answers.npz"))
    if problems or report is None or held is None:
        raise UserError(*problems)
    return ReadRun(folder, title, report, held, kept)


def _noted(problems: list[Problem], read: Callable[[], T]) -> T | None:
    try:
        return read()
    except UserError as error:
        problems += error.problems
        return None


def _require_run(folder: Path) -> None:
    """Raises `UserError` where a folder holds no run that has ended."""
    if not folder.is_dir():
        what = "is a file, not the folder of a run" if folder.exists() else "there is no such folder"
        raise UserError(Problem(f"{folder}: {what}{'' if folder.exists() else where_looked(folder)}", _NAME_A_RUN))
    record, has_report = read_record(folder), (folder / "report.json").is_file()
    was_killed = record is not None and (record.earlier or "report.json" not in record.files)
    if was_killed or (not has_report and ((folder / RECORD).exists() or (folder / "log.txt").exists())):
        raise UserError(
            Problem(
                f"{folder}: its run has not ended: it is at work, was stopped, or failed",
                "wait for it, or give the same `edgeopt run` again: it goes on from the last finished stage",
            )
        )
    if not has_report:
        inside = sorted(file.parent.name for file in folder.glob("*/report.json"))
        hint = f"it holds runs: name one of {_listed(inside)}" if inside else _NAME_A_RUN
        raise UserError(Problem(f"{folder}: this is not a run: it has no report.json", hint))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _lock(file: Path) -> lock.Lock:
    if not file.is_file():
        hint = "run its recipe again: an unchanged one is done in a second and writes it"
        raise UserError(Problem("the run's lock is missing", hint, Location(str(file))))
    return lock.read(file)


def _answers(file: Path) -> KeptAnswers | None:
    return KeptAnswers.read(file) if file.is_file() else None
