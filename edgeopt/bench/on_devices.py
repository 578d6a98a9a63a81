"""Files of finished runs on devices: what they answer there and how fast, beside what they answer here."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from edgeopt.arrays import ImageSize, size_in_words
from edgeopt.bench.device_tests import DeviceGroup, DeviceTests, FilesAt
from edgeopt.bench.measured import Measured
from edgeopt.bench.request import BenchRequest
from edgeopt.bench.rows import holds, image_size_of, missing_row, row_of
from edgeopt.bench.sustained import pieces
from edgeopt.bench.sweep.make import SweptFile
from edgeopt.bench.sweep.wanted import Place, places
from edgeopt.bench.table import BenchDevice, BenchRow, Minute, OperatorsRow, PipelineTimes, SustainedRow, WholeRow
from edgeopt.errors import DeviceError, EdgeoptError, in_a_line
from edgeopt.measure.on_device import (
    DeviceAnswers,
    device_file,
    device_job,
    energy_untold,
    judged,
    latency_there,
    steps_there,
)
from edgeopt.options import MeasureSettings
from edgeopt.pipeline.kept_tests import KeptTests
from edgeopt.pipeline.results import MeasuredFile
from edgeopt.plugins.blame import blamed
from edgeopt.plugins.declarations import DevicePlugin
from edgeopt.plugins.device import Device, DeviceFile, DeviceJob, FileOnDevice, WholeWay
from edgeopt.plugins.registry import Registry
from edgeopt.plugins.task import TaskPlugin
from edgeopt.plugins.use import Use
from edgeopt.preprocessing import Preprocessing
from edgeopt.recipe.devices import LOCAL, Devices, devices_in, devices_of
from edgeopt.report.devices import answers_otherwise, away
from edgeopt.report.finished_files import FinishedFile
from edgeopt.report.reading import read_report

if TYPE_CHECKING:  # NumPy is heavy, and only named here
    from edgeopt.arrays import Outputs
    from edgeopt.workers.display import Display

FileAtSize: TypeAlias = tuple[str, ImageSize]
_STEPS = 3  # of a file that only answers: its environment, its copy, its answers


def named_devices(request: BenchRequest, files: Sequence[FinishedFile], registry: Registry) -> Devices:
    """The devices that a request can name: those of its recipe, or those of the recipes of its runs.

    Raises `RecipeError` where one is described wrongly.
    """
    if request.recipe is not None:
        return devices_in(request.recipe, registry)
    found: Devices = {}
    for folder in dict.fromkeys(each.folder for each in files):
        found = {**devices_of(read_report(folder).recipe.resolved, registry), **found}
    return found


@dataclass(frozen=True)
class DeviceWork:
    """One benchmark on devices. `handed` holds for each file's path what a process of this machine opens it from, and
    `whole` is the image that goes the whole way.
    """

    request: BenchRequest
    devices: Devices
    files: Sequence[FinishedFile]
    tests: DeviceTests
    handed: Mapping[Path, Path]
    registry: Registry
    display: Display
    whole: WholeWay
    untold: list[str] = field(default_factory=list)
    """Why energies are not known, a sentence each."""

    def run(self) -> Measured:
        """Lets all files answer here, then on each device, where they are timed as well.

        A device that is away, and a file that fails there, have rows that say so. Raises `UserError` where the test
        images of a run are gone.
        """
        here = self._answers_here()
        rows: list[BenchRow] = []
        summaries: list[BenchDevice] = []
        minutes: list[SustainedRow] = []
        whole: list[WholeRow] = []
        failures: list[EdgeoptError] = []
        for name, use in self.devices.items():
            found, summary, wrong = self._device(name, use, here, minutes, whole)
            rows += found
            summaries.append(summary)
            failures += [wrong] if wrong is not None else []
        if not failures and all(row.error for row in rows):
            told = dict.fromkeys(f"{row.device}, {row.file}: {row.error}" for row in rows)
            failures.append(DeviceError(*told))
        count = max(len(group.tests.targets) for at in self._places.values() for group in at.groups)
        return Measured(
            image=f"the first {count:,} test images, of which the first are timed",
            rows=tuple(rows),
            whole=tuple(whole),
            sustained=tuple(minutes),
            operators=tuple(self._operators_untold()),
            devices=tuple(summaries),
            verdicts=tuple(self._verdicts(rows, summaries)),
            untold=tuple(dict.fromkeys(self.untold)),
            failures=tuple(failures),
        )

    def _operators_untold(self) -> Iterator[OperatorsRow]:
        """Where operators are asked for: that these are not told there."""
        for file in self.files if self.request.operators else ():
            error = "what operators take is asked of files on this machine alone, and not on devices"
            yield OperatorsRow(file=file.name, threads=self.request.threads[0], error=error)

    # ---- images

    @cached_property
    def _places(self) -> Mapping[Place, FilesAt]:
        """The files at each place of the sweep, by the images that they are fed with."""
        return {place: self.tests.at(place) for place in places(self.request)}

    def _gives_answers(self, place: Place) -> bool:
        """Whether files answer at a place: once at each size."""
        return (place.threads, place.batch) == (self.request.threads[0], self._first_batch)

    # ---- one device

    def _answers_here(self) -> dict[FileAtSize, Outputs]:
        """What the files that run here answer here."""
        here = devices_of({}, self.registry)[LOCAL]
        found: dict[FileAtSize, Outputs] = {}
        for place, at in self._places.items():
            for group in at.groups if self._gives_answers(place) else ():
                with self.display.bar("answers here", len(group.files) * _STEPS) as tell:
                    device = _opened(here, LOCAL, tell)
                    try:
                        results = device.run(self._job(group, group.files, place, timed=False), tell)
                    finally:
                        device.close()
                for each in group.files:
                    if (outputs := results[each.file.name].outputs) is not None:
                        found[_at_size(each)] = outputs
        return found

    @property
    def _first_batch(self) -> int:
        return self.request.batches[0]

    def _device(
        self,
        name: str,
        use: Use[DevicePlugin],
        here: Mapping[FileAtSize, Outputs],
        minutes: list[SustainedRow],
        whole: list[WholeRow],
    ) -> tuple[list[BenchRow], BenchDevice, DeviceError | None]:
        """All rows of a device, the device, and what is wrong with it altogether; calls without a pause go to
        `minutes`, and the whole ways of an image to `whole`.
        """
        steps = sum(
            steps_there(self._settings(place)) * len(group.files)
            for place, at in self._places.items()
            for group in at.groups
        )
        rows: list[BenchRow] = []
        facts, wrong, device = None, None, None
        answers: dict[FileAtSize, DeviceAnswers | str] = {}
        with self.display.bar(name, steps) as tell:
            try:
                device = _opened(use, name, tell)
                for place, at in self._places.items():
                    for group in at.groups:
                        rows += self._rows(device, name, group, place, here, answers, whole, tell)
                    rows += self._missing(name, place, at)
                if self.request.sustained_s:
                    minutes += self._sustained(device, name, tell)
                facts = device.describe()
            except DeviceError as error:
                wrong = error
            finally:
                if device is not None:
                    device.close()
        said = in_a_line(wrong) if wrong is not None else None
        if said is not None:
            rows += self._not_done(name, rows, said)
        return rows, BenchDevice(name=name, kind=use.plugin.name, facts=facts, error=said), wrong

    def _missing(self, device: str, place: Place, at: FilesAt) -> Iterator[BenchRow]:
        """The rows of files that could not be made for a place."""
        for each in at.missing:
            row = missing_row(each.file, place.threads, place.batch, place.size, each.reason)
            yield replace(row, device=device, test_accuracy=None, accuracy_interval=None, score=None)

    def _not_done(self, device: str, rows: Sequence[BenchRow], reason: str) -> Iterator[BenchRow]:
        """The rows of a device that is away, or went away, beside those that it has."""
        done = {(row.file, row.image_size, row.threads, row.batch_size) for row in rows}
        for place, at in self._places.items():
            for each in (each for group in at.groups for each in group.files):
                if (*_at_size(each), place.threads, place.batch) not in done:
                    yield row_of(
                        each.file, place.threads, place.batch, {}, self.files, reason, device=device, made=each.made
                    )
            for row in self._missing(device, place, at):
                if (row.file, row.image_size, row.threads, row.batch_size) not in done:
                    yield row

    def _rows(
        self,
        device: Device,
        name: str,
        group: DeviceGroup,
        place: Place,
        here: Mapping[FileAtSize, Outputs],
        answers: dict[FileAtSize, DeviceAnswers | str],
        whole: list[WholeRow],
        tell: Callable[[str], None],
    ) -> Iterator[BenchRow]:
        """The rows of files at a place; answers are taken with the first threads and images at each size, and the whole
        way of an image by the run's own files with the first number of images.
        """
        settings = self._settings(place)
        job = self._job(group, group.files, place, timed=True)
        found = device.run(job, tell)
        measured = {
            name: MeasuredFile(latency, each.peak_memory_bytes)
            for name, each in found.items()
            if (latency := latency_there(each, settings))
        }
        for each in group.files:
            file, result, key = each.file, found[each.file.name], _at_size(each)
            if place.size is None and place.batch == self._first_batch and each.made is None and not result.error:
                whole.append(_whole(file, place.threads, name, result))
            if key not in answers and result.outputs is not None:
                answers[key] = self._judged(file, result.outputs, group.tests, here.get(key))
            told = answers.get(key)
            error = result.error or (told if isinstance(told, str) else None)
            silent = "it gave no answers" if job.answers and result.outputs is None and not error else None
            row = row_of(
                file,
                place.threads,
                place.batch,
                measured,
                [other.file for other in group.files],
                error,
                device=name,
                answers=told if isinstance(told, DeviceAnswers) else None,
                note=result.note or silent,
                made=each.made,
            )
            yield replace(row, energy=result.energy)
            if job.energy and result.energy is None and not error:
                self.untold.append(f"{name}: the energy of {file.name} is not known: {energy_untold(result)}")

    def _sustained(self, device: Device, name: str, tell: Callable[[str], None]) -> Iterator[SustainedRow]:
        """Each file without a pause, for as long as was asked for, one after the other."""
        parts = tuple(pieces(self.request.sustained_s))
        for threads in self.request.threads:
            place = Place(threads, 1)
            for group in self.tests.at(place).groups:
                for each in group.files:
                    job = replace(
                        self._job(group, [each], place, timed=True),
                        answers=False,
                        energy=False,
                        turn_energy=self.request.energy,
                        whole=None,
                        turns=tuple((1, seconds) for seconds in parts),
                    )
                    found = device.run(job, tell)[each.file.name]
                    ends = [sum(parts[: number + 1]) / 60 for number in range(len(parts))]
                    counts = found.means_of or tuple(map(len, found.turns_ms))
                    energies_mj = found.turn_mj or (None,) * len(parts)
                    told = (
                        Minute(end, statistics.median(times), count, *state, energy_mj)
                        for end, times, count, state, energy_mj in zip(
                            ends, found.turns_ms, counts, found.states, energies_mj, strict=False
                        )
                    )
                    if self.request.energy and None in energies_mj and not found.error:
                        self.untold.append(
                            f"{name}: the energy of {each.file.name} without a pause is not known: "
                            f"{energy_untold(found)}"
                        )
                    yield SustainedRow(
                        file=each.file.name, threads=threads, minutes=tuple(told), error=found.error, device=name
                    )

    def _settings(self, place: Place) -> MeasureSettings:
        return self.request.settings.model_copy(update={"threads": place.threads, "batch_size": place.batch})

    def _job(self, group: DeviceGroup, files: Sequence[SweptFile], place: Place, *, timed: bool) -> DeviceJob:
        taken = tuple(self._device_file(each.file) for each in files)
        answers = not timed or self._gives_answers(place)
        job = device_job(taken, group.images, self._settings(place), answers=answers, timed=timed)
        if not timed or place.batch != self._first_batch:
            return job
        return replace(job, whole=self.whole if place.size is None else None, energy=self.request.energy)

    def _device_file(self, file: FinishedFile) -> DeviceFile:
        preprocessing, handed = Preprocessing.from_json(file.card.preprocessing), self.handed[file.path]
        pixels = holds(file) == "pixels"
        return device_file(
            *(file.name, file.path, file.row.sha256, file.exporter, preprocessing),
            takes_pixels=pixels,
            handed=handed,
            card=file.card,
            answering=self.registry.get(TaskPlugin, file.card.task).device_modules,
        )

    @staticmethod
    def _judged(file: FinishedFile, outputs: Outputs, tests: KeptTests, here: Outputs | None) -> DeviceAnswers | str:
        """What a file's answers are worth, or why they are worth nothing."""
        program = tests.program(file.row.role)
        answers, error = judged(tests.task, outputs, tests.targets, program, here, tests.output_names)
        return answers or error or "it gave no answers"

    # ---- what must not be overlooked

    def _verdicts(self, rows: Sequence[BenchRow], devices: Sequence[BenchDevice]) -> Iterator[str]:
        yield from (away(each.name, each.error) for each in devices if each.error)
        notes: dict[tuple[str, str], list[str]] = {}
        for row in rows:
            if row.note:
                notes.setdefault((row.device, row.note), []).append(row.file)
        yield from (f"{device}, {', '.join(dict.fromkeys(files))}: {note}" for (device, note), files in notes.items())
        told = set()
        for row in rows:
            answers = row.answers
            key = row.device, row.file, row.image_size
            if answers is None or not answers.differing or key in told:
                continue
            told.add(key)
            size = f" for {size_in_words(row.image_size)} px" if row.made else ""
            yield answers_otherwise(row.device, f"{row.file}{size}", answers)


def _at_size(swept: SweptFile) -> FileAtSize:
    return swept.file.name, image_size_of(swept.file)


def _whole(file: FinishedFile, threads: int, device: str, found: FileOnDevice) -> WholeRow:
    """The whole way of an image through a file on a device, or why it is not known."""
    if not found.whole_ms:
        why = found.no_whole or "this kind of device does not take images the whole way"
        return WholeRow(file=file.name, threads=threads, error=why, device=device)
    return WholeRow(file=file.name, threads=threads, pipeline_ms=PipelineTimes.of(found.whole_ms), device=device)


def _opened(use: Use[DevicePlugin], name: str, tell: Callable[[str], None]) -> Device:
    with blamed(use.plugin, "open"):
        return use.plugin.opened(use.options, name, tell)
