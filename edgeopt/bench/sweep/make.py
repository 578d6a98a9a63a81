"""Makes the files of a sweep: test images, then programs, then files and their answers, a process for each."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeopt.arrays import OUTPUTS, ImageSize, size_in_words
from edgeopt.bench.rows import fed, image_size_of
from edgeopt.bench.sweep.answers import AnswersJob
from edgeopt.bench.sweep.file import CARD, FileJob, WantedFile, WrittenFile
from edgeopt.bench.sweep.images import PIXELS, TARGETS, ImagesJob, TestImages, read_targets, write_targets
from edgeopt.bench.sweep.program import COMPARED, ProgramJob
from edgeopt.bench.sweep.wanted import Wanted, WantedKey
from edgeopt.bench.table import FileAnswers, MadeFile
from edgeopt.cards.reading import card_from_text
from edgeopt.errors import EdgeoptError, ExportError, Problem, UserError, WorkerError
from edgeopt.json_values import from_text
from edgeopt.measure.on_device import at_most
from edgeopt.options import MeasureSettings
from edgeopt.pipeline.kept_programs import KeptProgram, kept_program
from edgeopt.plugins.declarations import DatasetPlugin, ExporterPlugin
from edgeopt.plugins.handed import hand_over
from edgeopt.plugins.registry import Registry
from edgeopt.plugins.use import Use
from edgeopt.recipe.lookup import resolve_step
from edgeopt.report.finished_files import FinishedFile
from edgeopt.report.reading import read_report
from edgeopt.report.schema import Report
from edgeopt.types import Role
from edgeopt.workers.pool import Workers

if TYPE_CHECKING:
    from edgeopt.workers.launch import Nursery

FOLDER = "files"
"""Where below a benchmark's folder the files lie that it made."""

_MODULES = ("edgeopt.bench.sweep.file", "torch", "torch.export.pt2_archive")
_THREADS = 1  # of numeric libraries, as where a run exports
_LIMIT_S = 3 * 3600.0  # without a word from an exporter, as in a run


@dataclass(frozen=True)
class SweptTests:
    """Test images that were brought to a size, their targets, and what the program for it answered for the first.

    Files of NumPy: uint8 (n, height, width, channels), what `read_targets` reads, and one for each output.
    """

    pixels: Path
    targets: Path
    outputs: Path


@dataclass(frozen=True)
class SweptFile:
    """A file of a run; or one that was `made` in its stead, with its own path, card, bytes and accuracy, under the name
    of the run's. One for another size than the run's has `tests` of its own.
    """

    file: FinishedFile
    made: MadeFile | None = None
    tests: SweptTests | None = None


Swept = Mapping[WantedKey, SweptFile | EdgeoptError]
"""What came of each file that was wanted: the file, or why there is none."""


def make_files(
    wanted: Sequence[Wanted],
    registry: Registry,
    workers: Workers,
    settings: MeasureSettings,
    out: Path,
    aside: Path,
    devices_take: int = 0,
) -> Swept:
    """Makes the files of a sweep below `out`; what is needed on the way goes to `aside`.

    Tests with as many images as `devices_take` stay there. A file that cannot be made takes no other with it.
    """
    if not wanted:
        return {}
    with workers.nursery(_MODULES, _THREADS) as nursery:
        making = _Making(registry, workers, settings, out, aside, devices_take, nursery)
        return {each.key: making.swept(each) for each in wanted}


@dataclass
class _Making:
    registry: Registry
    workers: Workers
    settings: MeasureSettings
    out: Path
    aside: Path
    devices_take: int
    nursery: Nursery | None
    _runs: dict[Path, _Run] = field(default_factory=dict)
    _images: dict[tuple[Path, ImageSize], Path | EdgeoptError] = field(default_factory=dict)
    _programs: dict[tuple[Path, Role, ImageSize], Path | EdgeoptError] = field(default_factory=dict)
    _tests: dict[tuple[Path, ImageSize], Path] = field(default_factory=dict)
    _count: int = 0

    def swept(self, wanted: Wanted) -> SweptFile | EdgeoptError:
        try:
            return self._swept(wanted)
        except (UserError, WorkerError) as error:
            return error

    def _swept(self, wanted: Wanted) -> SweptFile:
        if wanted.file.is_converted:
            message = "it is of no run, whose program another file could be made of"
            raise UserError(Problem(message, "convert its source anew, with what the file is to take"))
        file, run = wanted.file, self._run(wanted.file.folder)
        exporter = run.exporter(file, self.registry)
        if wanted.batch:
            exporter = _for_batch(exporter, wanted)
        kept = kept_program(file.folder, file.row.role)
        images = self._test_images(run, kept.data, wanted.size)
        program = self._program(run, kept, file.row.role, wanted.size, images)
        folder = self._folder(wanted)
        written = self._written(
            WantedFile(exporter, file.row.role, file.card.recipe, program, run.report.recipe.seed),
            folder,
            _named(wanted),
        )
        path = folder / written.name
        card = card_from_text((folder / CARD).read_text(encoding="utf-8"))
        row = replace(file.row, size_bytes=written.size_bytes, sha256=written.sha256, precision=written.precision)
        made = replace(file, path=path, card=card, row=row)
        answers = self._answers(made, images, program, _named(wanted))
        told = replace(
            row,
            scores=answers.scores,
            test_accuracy=answers.test_accuracy,
            accuracy_interval=answers.accuracy_interval,
        )
        made = replace(made, row=told)
        where = path.relative_to(self.out).as_posix()
        own_size = wanted.size == image_size_of(file)
        tests = None if own_size or not self.devices_take else self._kept_tests(run, wanted.size, images, program)
        return SweptFile(made, MadeFile(path=where, sha256=written.sha256, answers=answers), tests)

    # -- what several files share

    def _run(self, folder: Path) -> _Run:
        return self._runs.setdefault(folder, _Run(folder))

    def _test_images(self, run: _Run, data: Path, size: ImageSize) -> Path:
        """The folder with the test images of a run at a size. Those of sizes that are done with are removed."""
        key = run.folder, size
        if key not in self._images:
            for other in [each for each in self._images if each[1] != size]:
                if isinstance(done := self._images.pop(other), Path):
                    shutil.rmtree(done, ignore_errors=True)
            subject, folder = self._new("images.pickle"), self._new("images")
            folder.mkdir()
            hand_over(TestImages(data, run.dataset(self.registry)), subject, self.registry)
            self._images[key] = self._tried(
                ImagesJob(subject, folder, size), f"test images at {size_in_words(size)} px", folder
            )
        return _there(self._images[key])

    def _program(self, run: _Run, kept: KeptProgram, role: Role, size: ImageSize, images: Path) -> Path:
        """The folder with the program behind files of a role, for images of a size."""
        key = run.folder, role, size
        if key not in self._programs:
            folder = self._new("program")
            folder.mkdir()
            compared = max(COMPARED, self.devices_take)
            job = ProgramJob(kept.program, kept.origin, kept.is_fixed, images, folder, size, compared)
            self._programs[key] = self._tried(job, f"{role} program at {size_in_words(size)} px", folder)
        return _there(self._programs[key])

    def _kept_tests(self, run: _Run, size: ImageSize, images: Path, program: Path) -> SweptTests:
        """The first test images at a size, as many as devices take; all of them are removed when their size is done."""
        import numpy as np  # heavy, and only devices are given images from here

        from edgeopt.networks.saved import load_outline  # as above

        key = run.folder, size
        if key not in self._tests:
            folder = self._tests[key] = self._new("tests")
            folder.mkdir()
            np.save(folder / PIXELS, np.load(images / PIXELS, mmap_mode="r")[: self.devices_take])
            task = load_outline(program).task
            targets = read_targets(images / TARGETS, task)[: self.devices_take]
            write_targets(folder / TARGETS, task, targets)
        return SweptTests(self._tests[key] / PIXELS, self._tests[key] / TARGETS, program / OUTPUTS)

    def _tried(self, job: Any, label: str, folder: Path) -> Path | EdgeoptError:
        try:
            self.workers.run(job, label, _THREADS, _LIMIT_S, self.nursery)
        except (UserError, WorkerError) as error:
            return error
        return folder

    # -- one file

    def _folder(self, wanted: Wanted) -> Path:
        batch = f"-batch-{wanted.batch}" if wanted.batch else ""
        run, rest = wanted.file.name.split("/", 1)
        folder = self.out / FOLDER / run / f"{size_in_words(wanted.size, 'x')}px{batch}" / Path(rest).parent
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def _written(self, wanted: WantedFile, folder: Path, label: str) -> WrittenFile:
        subject, answer = self._new("wanted.pickle"), self._new("written.json")
        hand_over(wanted, subject, self.registry)
        self.workers.run(FileJob(subject, folder, answer), f"export: {label}", _THREADS, _LIMIT_S, self.nursery)
        return from_text(WrittenFile, answer.read_text())

    def _answers(self, made: FinishedFile, images: Path, program: Path, label: str) -> FileAnswers:
        subject, answer = self._new("fed.pickle"), self._new("answers.json")
        hand_over(fed(made, self.registry), subject, self.registry)
        settings = self.settings
        job = AnswersJob(subject, images, program, answer, settings.batch_size, settings.threads)
        self.workers.run(job, f"answers: {label}", settings.threads, settings.timeout_s)
        return from_text(FileAnswers, answer.read_text())

    def _new(self, name: str) -> Path:
        self._count += 1
        return self.aside / f"{self._count}-{name}"


@dataclass(frozen=True)
class _Run:
    """A run whose recipe says how its files were made."""

    folder: Path

    @cached_property
    def report(self) -> Report:
        return read_report(self.folder)

    def exporter(self, file: FinishedFile, registry: Registry) -> Use[ExporterPlugin]:
        """The exporter of a file with the options that it was written with."""
        steps = self.report.recipe.resolved["exports"]
        use = resolve_step(ExporterPlugin, next(each for each in steps if each["name"] == file.row.export), registry)
        return Use(use.plugin, use.plugin.float_options(use.options)) if file.row.role is Role.BASELINE else use

    def dataset(self, registry: Registry) -> Use[DatasetPlugin]:
        return resolve_step(DatasetPlugin, self.report.recipe.resolved["dataset"], registry)


def _for_batch(use: Use[ExporterPlugin], wanted: Wanted) -> Use[ExporterPlugin]:
    """The exporter with options for a file that takes so many images in a call."""
    if use.plugin.for_batch is None:
        reason = f"{at_most(wanted.file.card.input)}, and {use.plugin.runtime}'s exporter makes none that take more"
        raise ExportError(Problem(reason, "call it for one image after the other"))
    return Use(use.plugin, use.plugin.for_batch(use.options, wanted.batch))


def _there(found: Path | EdgeoptError) -> Path:
    if isinstance(found, EdgeoptError):
        raise found
    return found


def _named(wanted: Wanted) -> str:
    size = f" at {size_in_words(wanted.size)} px" if wanted.size != image_size_of(wanted.file) else ""
    return f"{wanted.file.name}{size}{f' for {wanted.batch} images' if wanted.batch else ''}"
