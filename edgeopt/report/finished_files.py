"""Files that can be opened here, of runs and of `edgeopt convert`, and the test images that runs kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from edgeopt.cards.reading import card_from_text, card_of
from edgeopt.errors import Problem, UserError
from edgeopt.fingerprint import digest, file_digest, parts_digest
from edgeopt.plugins.declarations import ExporterPlugin
from edgeopt.plugins.registry import Registry, missing_problem
from edgeopt.report.answers import shown_file
from edgeopt.report.reading import read_report
from edgeopt.report.samples import sample_file
from edgeopt.report.schema import Report, Row
from edgeopt.types import TORCH, Card, Role

CARD = "card.json"


@dataclass(frozen=True)
class FinishedFile:
    """A file of a run with its card, and the exporter that opens it; `name` is "RUN/EXPORT/ROLE/model.SUFFIX".

    `again` are the names under which other runs have the same file, byte for byte. One that `edgeopt convert` made is
    `is_converted`: its name is that of the file, `run` and `row.export` too, and `folder` is where it lies.
    """

    name: str
    run: str
    folder: Path
    path: Path
    exporter: ExporterPlugin
    card: Card
    row: Row
    again: tuple[str, ...] = ()
    is_converted: bool = False

    @property
    def size_bytes(self) -> int:
        """Bytes of the file and of those that it cannot be opened without."""
        return self.row.size_bytes or sum(part.stat().st_size for part in self.exporter.parts(self.path))

    @property
    def identity(self) -> str:
        """What two files have in common that answer alike: their bytes, and how they are fed. Runs share float files.

        It is the path where the run says nothing of the bytes.
        """
        if self.row.sha256 is None:
            return str(self.path)
        return digest([self.row.sha256, self.exporter.name, self.card.preprocessing, list(self.card.classes)])


@dataclass(frozen=True)
class KeptSample:
    """A test image that a run kept: a PNG, as the run's files took it."""

    run: str
    index: int
    truth: str
    path: Path


@dataclass(frozen=True)
class Catalogue:
    """All that was found, and in `left_out`, a sentence each, what is left out and why."""

    files: tuple[FinishedFile, ...]
    samples: tuple[KeptSample, ...]
    left_out: tuple[str, ...] = ()


def find_files(given: Sequence[Path], registry: Registry) -> Catalogue:
    """The files that are meant. Each of `given` is the folder of a finished run, one file in it, or a file with a card
    within, as `edgeopt convert` makes it.

    Raises `UserError` with every problem: no run, no card, a file that is gone, nothing that can be opened here.
    """
    problems: list[Problem] = []
    files: dict[str, FinishedFile] = {}
    samples: dict[str, tuple[KeptSample, ...]] = {}
    left_out: list[str] = []
    names: dict[Path, str] = {}
    for path in given:
        try:
            folder = run_of(path)
            if is_alone(path):
                run = names.setdefault(path.resolve(), _free_name(path.name, names.values()))
                alone = _alone(path, run, registry)
                files.setdefault(alone.identity, alone)
                continue
            report = read_report(folder)
        except UserError as error:
            problems += error.problems
            continue
        run = names.setdefault(folder.resolve(), _free_name(folder.resolve().name, names.values()))
        samples[run] = tuple(_samples(folder, run, report))
        for row in report.rows:
            file = folder / row.file
            if path.is_file() and file.resolve() != path.resolve():
                continue
            exporter = _exporter(row, report, registry)
            reason = _reason_against(row, exporter)
            if exporter is None or reason:
                left_out.append(f"{run}/{row.file} is left out: {reason}")
                continue
            try:
                card = _card(file)
            except UserError as error:
                problems += error.problems
                continue
            found = FinishedFile(f"{run}/{row.file}", run, folder, file.resolve(), exporter, card, row)
            first = files.setdefault(found.identity, found)
            if first.path != found.path:
                files[found.identity] = replace(first, again=(*first.again, found.name))
                left_out.append(f"{found.name} is left out: it is {first.name} again, byte for byte")
    if problems:
        raise UserError(*problems)
    if not files:
        raise UserError("there is no file that can be opened here", *left_out, hint="name a run whose files can")
    return Catalogue(tuple(files.values()), tuple(each for kept in samples.values() for each in kept), tuple(left_out))


def run_of(path: Path) -> Path:
    """The folder of the run: the one given, or that of a file EXPORT/ROLE/model.SUFFIX."""
    if path.name == "report.json":
        return path.parent
    return path.resolve().parents[2] if path.is_file() and len(path.resolve().parents) > 2 else path


def is_alone(path: Path) -> bool:
    """Whether a path is that of a file, and not of a run's."""
    return path.is_file() and path.name != "report.json" and not (run_of(path) / "report.json").is_file()


def _alone(path: Path, name: str, registry: Registry) -> FinishedFile:
    """A file of no run, by the card within or beside it.

    Raises `UserError` where it has none, where nothing here opens it, and where one is missing that it needs.
    """
    card = card_of(path)
    exporters = [
        entry.plugin
        for entry in registry
        if isinstance(entry.plugin, ExporterPlugin)
        and entry.plugin.runtime == card.runtime
        and path.name.endswith(entry.plugin.suffix)
    ]
    exporters.sort(key=lambda exporter: exporter.framework != TORCH)  # whatever made it, a runtime opens it alike
    row = Row(
        runtime=card.runtime,
        export=name,
        file=path.name,
        precision=card.precision,
        role=next((role for role in Role if role == card.role), Role.OPTIMIZED),
        input=card.input,
        output=card.outputs[0] if card.outputs else None,
        outputs=card.outputs if len(card.outputs) > 1 else (),
    )
    reasons = [_reason_against(row, exporter) for exporter in exporters] or [_reason_against(row, None)]
    able = [exporter for exporter, reason in zip(exporters, reasons, strict=False) if reason is None]
    if not able:
        raise UserError(Problem(f"{path} cannot be opened here: {reasons[0]}"))
    parts = able[0].parts(path.resolve())
    if missing := [part.name for part in parts if not part.is_file()]:
        hint = "put there what was made with it, or make both again"
        raise UserError(Problem(f"{path} cannot be opened: {', '.join(missing)} is not beside it", hint))
    digests = [file_digest(part) for part in parts]
    row = replace(row, size_bytes=sum(part.stat().st_size for part in parts), sha256=parts_digest(digests))
    return FinishedFile(name, name, parts[0].parent, parts[0], able[0], card, row, is_converted=True)


def _free_name(name: str, taken: Iterable[str]) -> str:
    """A run's name, numbered where another run of that name is given."""
    used, number, free = set(taken), 2, name
    while free in used:
        free, number = f"{name}-{number}", number + 1
    return free


def _reason_against(row: Row, exporter: ExporterPlugin | None) -> str | None:
    """Why a file is left out, or None."""
    if row.error:
        return "it failed in its run"
    if row.not_run:
        return row.not_run
    if row.stand_in:
        return f"{row.stand_in} would answer in its place"
    if exporter is None:
        return f"no plugin of this machine opens a file of {row.runtime}; load one of your own with --plugin"
    packages = {module.partition(".")[0] for module in exporter.runtime_modules}
    if any(find_spec(package) is None for package in packages) and (missing := missing_problem(exporter)):
        return f"{missing.message}; {missing.hint}"
    return None


def _card(file: Path) -> Card:
    """The card beside a file that is there."""
    again = "run the recipe again: what was made already is put back"
    if not file.is_file():
        raise UserError(Problem(f"{file} is gone", again))
    beside = file.with_name(CARD)
    try:
        return card_from_text(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(Problem(f"{beside} is no card that can be read", again)) from error


def exporter_name(row: Row, report: Report) -> str:
    """The exporter that the recipe of a run names for one of its files."""
    exports = report.recipe.resolved.get("exports", ())
    return next((str(each["use"]) for each in exports if each.get("name") == row.export), row.export)


def _exporter(row: Row, report: Report, registry: Registry) -> ExporterPlugin | None:
    """The exporter that the recipe names for the file, or None where no installed plugin has that name."""
    name = exporter_name(row, report)
    return registry.get(ExporterPlugin, name) if name in registry.names(ExporterPlugin) else None


def _samples(folder: Path, run: str, report: Report) -> Iterator[KeptSample]:
    """Those that the report shows: one by one where answers are classes, in the sections of the task otherwise."""
    shown = shown_file(report.rows)
    truths = {sample.index: report.dataset.classes[sample.label] for sample in report.samples}
    for section in shown.sections if shown is not None else ():
        for image in section.images:
            truths.setdefault(image.index, image.truth)
    for index, truth in truths.items():
        path = sample_file(folder, index)
        if path.is_file():
            yield KeptSample(run, index, truth, path)
