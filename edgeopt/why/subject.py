"""The file that is to be looked at, with what its run keeps of it: found, or refused with what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeopt.errors import Problem, UserError
from edgeopt.pipeline.record import read_record
from edgeopt.pipeline.runner import store_of
from edgeopt.plugins.declarations import DatasetPlugin, ExporterPlugin
from edgeopt.plugins.registry import Registry
from edgeopt.plugins.use import Use
from edgeopt.recipe.endings import ends_of
from edgeopt.recipe.lookup import resolve_step
from edgeopt.recipe.stage import StageKind
from edgeopt.report.finished_files import FinishedFile, exporter_name, find_files
from edgeopt.report.reading import read_report
from edgeopt.report.schema import Report, Row
from edgeopt.tasks.endings import OUTPUTS
from edgeopt.types import TORCH, Role

_AGAIN = "run the recipe again: what is still there is put back, and the rest is made anew"


@dataclass(frozen=True)
class Subject:
    """A file with its exporter and its options, and where the run keeps the program that it was made from and its
    images. `dataset` opens images that are too many to be kept.
    """

    name: str
    path: Path
    exporter: Use[ExporterPlugin]
    takes_pixels: bool
    program: Path
    data: Path
    dataset: Use[DatasetPlugin]


@dataclass(frozen=True)
class Found:
    """The subject, and the run that it is a file of."""

    subject: Subject
    folder: Path
    row: Row
    report: Report


def find_subject(given: Path, registry: Registry) -> Found:
    """The file `given`, ready to be looked at.

    Raises `UserError` with what to do: it is a run and no file, no file of a run, one of float precision, of a runtime
    that shows nothing or of another framework, or the run's program and images are gone.
    """
    if not given.is_file():
        files = ", ".join(_optimized(given)) if given.is_dir() else ""
        if files:
            raise UserError(Problem(f"{given} is a folder, and one file is looked at", f"name one of {files}"))
        hint = "name a file of a finished run, RUN/EXPORT/optimized/model.SUFFIX"
        raise UserError(Problem(f"{given}: there is no such file", hint))
    folder = given.resolve().parent.parent.parent
    report = read_report(folder)
    row = next((row for row in report.rows if (folder / row.file).resolve() == given.resolve()), None)
    if row is None:
        hint = f"name one of {', '.join(_optimized(folder))}"
        raise UserError(Problem(f"{given} is no file of the run in {folder}", hint))
    _require_rounded(given, row, folder)
    name = exporter_name(row, report)
    if name in registry.names(ExporterPlugin) and registry.get(ExporterPlugin, name).tap is None:
        others = [other for other in _optimized(folder) if _is_shown(other, folder, report, registry)]
        message = f"exporter {name!r} shows no inner values of its files, so nobody can say where {given} errs"
        hint = f"look at {' or '.join(others)}, of the same program" if others else "its plugin must declare `tap`"
        raise UserError(Problem(message, hint))
    file = find_files([given], registry).files[0]
    return Found(_subject(file, report, registry), folder, row, report)


def _require_rounded(given: Path, row: Row, folder: Path) -> None:
    """Raises `UserError` for a file whose program has no integers."""
    if row.converted:
        message = f"{given}: its exporter made {row.precision} of a float program, layer by layer alike"
        hint = "no pass has rounded it; `edgeopt report` has how far its answers are from the program's"
        raise UserError(Problem(message, hint))
    if row.role is Role.BASELINE or row.precision == "float32":
        others = ", ".join(_optimized(folder))
        hint = f"name one of {others}" if others else "name a file that a pass such as ptq has quantized"
        raise UserError(Problem(f"{given} is {row.precision}: nothing in it is rounded", hint))


def _subject(file: FinishedFile, report: Report, registry: Registry) -> Subject:
    resolved = report.recipe.resolved
    step = next(each for each in resolved["exports"] if each["name"] == file.row.export)
    exporter = resolve_step(ExporterPlugin, step, registry)
    _require_outputs(file, exporter)
    record, store = read_record(file.folder), store_of(file.folder.parent)
    program, data = (
        store.find(record.stages[name]) if record and name in record.stages else None
        for name in (f"{StageKind.PROGRAM}-{Role.OPTIMIZED}", StageKind.DATA)
    )
    if program is None or data is None:
        raise UserError(Problem(f"what the run of {file.path} kept of it has gone from {store.root}", _AGAIN))
    if program.values.get("cost") is None and file.exporter.framework != TORCH:
        raise UserError(
            Problem(
                f"{file.path} was made from a model of {file.exporter.framework}",
                f"layers are looked at in programs of {TORCH} alone",
            )
        )
    return Subject(
        name=file.name,
        path=file.path,
        exporter=exporter,
        takes_pixels=bool(file.card.input and file.card.input.holds == "pixels"),
        program=program.folder,
        data=data.folder,
        dataset=resolve_step(DatasetPlugin, resolved["dataset"], registry),
    )


def _require_outputs(file: FinishedFile, exporter: Use[ExporterPlugin]) -> None:
    """Raises `UserError` for a file that goes on behind its network: answers do not say how far off outputs were."""
    if (ends := ends_of(exporter.options)) != OUTPUTS:
        message = f'{file.path} ends at "{ends}", and where a network errs is told by its outputs'
        hint = f"export the program with {exporter.plugin.name!r} once more, without `ends`, and look at that file"
        raise UserError(Problem(message, hint))


def _optimized(folder: Path) -> Iterator[str]:
    """The files of a run that can be looked at, as a user names them."""
    for row in read_report(folder).rows:
        if row.role is Role.OPTIMIZED and not row.converted and not row.error and (folder / row.file).is_file():
            yield str(folder / row.file)


def _is_shown(name: str, folder: Path, report: Report, registry: Registry) -> bool:
    row = next(row for row in report.rows if str(folder / row.file) == name)
    exporter = exporter_name(row, report)
    return exporter in registry.names(ExporterPlugin) and registry.get(ExporterPlugin, exporter).tap is not None
