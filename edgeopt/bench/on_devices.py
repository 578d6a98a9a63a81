"""Files of finished runs on devices: what they answer there and how fast, beside what they answer here."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.bench.request import BenchRequest
from edgeopt.bench.rows import holds, refusal, row_of
from edgeopt.bench.sustained import pieces
from edgeopt.bench.table import BenchDevice, BenchRow, Minute, PipelineTimes, SustainedRow, WholeRow
from edgeopt.errors import DeviceError, Problem, in_a_line
from edgeopt.measure.on_device import (
    DeviceAnswers,
    ImagesThere,
    device_file,
    device_job,
    judged,
    latency_there,
    steps_there,
)
from edgeopt.options import MeasureSettings
from edgeopt.pipeline.kept_tests import KeptTests, kept_tests
from edgeopt.pipeline.results import MeasuredFile
from edgeopt.plugins.blame import blamed
from edgeopt.plugins.declarations import DevicePlugin
from edgeopt.plugins.device import Device, DeviceFile, DeviceJob, FileOnDevice, WholeWay
from edgeopt.plugins.registry import Registry
from edgeopt.plugins.use import Use
from edgeopt.preprocessing import Preprocessing
from edgeopt.recipe.devices import LOCAL, Devices, devices_in, devices_of
from edgeopt.report.devices import answers_otherwise, away
from edgeopt.report.finished_files import FinishedFile
from edgeopt.report.reading import read_report

if TYPE_CHECKING:  # NumPy is heavy, and only named here
    from edgeopt.arrays import Outputs

Bar = Callable[[str, int], AbstractContextManager[Callable[[str], None]]]
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
class _Group:
    """Files that are fed with the same images, which stand in a file for devices to take."""

    files: tuple[FinishedFile, ...]
    tests: KeptTests
    images: ImagesThere


@dataclass(frozen=True)
class OnDevices:
    """What came of it: see `Bench`."""

    rows: tuple[BenchRow, ...] = ()
    devices: tuple[BenchDevice, ...] = ()
    sustained: tuple[SustainedRow, ...] = ()
    whole: tuple[WholeRow, ...] = ()
    verdicts: tuple[str, ...] = ()
    image: str = ""
    failures: tuple[Problem, ...] = ()
    untold: tuple[str, ...] = ()


@dataclass(frozen=True)
class DeviceWork:
    """One benchmark on devices. `handed` holds for each file what a process of this machine opens it from, and `whole`
    is the image that goes the whole way.
    """

    request: BenchRequest
    devices: Devices
    files: Sequence[FinishedFile]
    handed: Mapping[str, Path]
    registry: Registry
    aside: Path
    bar: Bar
    whole: WholeWay
    untold: list[str] = field(default_factory=list)
    """Why energies are not known, a sentence each."""

    def run(self) -> OnDevices:
        """Lets all files answer here, then on each device, where they are timed as well.

        A device that is away, and a file that fails there, have rows that say so. Raises `UserError` where the test
        images of a run are gone.
        """
        here = self._answers_here()
        rows: list[BenchRow] = []
        summaries: list[BenchDevice] = []
        minutes: list[SustainedRow] = []
        whole: list[WholeRow] = []
        failures: list[Problem] = []
        for name, use in self.devices.items():
            found, summary, wrong = self._device(name, use, here, minutes, whole)
            rows += found
            summaries.append(summary)
            failures += wrong
        count = max(len(group.tests.targets) for group in self._groups)
        image = f"the first {count:,} test images, of which the first are timed"
        verdicts = tuple(self._verdicts(rows, summaries))
        return OnDevices(
            tuple(rows),
            tuple(summaries),
            tuple(minutes),
            tuple(whole),
            verdicts,
            image,
            tuple(failures),
            tuple(self.untold),
        )

    # ---- images

    @cached_property
    def _groups(self) -> tuple[_Group, ...]:
        """The files by the images that they are fed with."""
        import numpy as np  # heavy, as is what reads images

        runs: dict[Path, _Group] = {}
        groups: dict[str, _Group] = {}
        for file in self.files:
            if file.folder not in runs:
                tests = kept_tests(file.folder, self.registry, self.request.images)
                path = self.aside / f"images-{len(runs)}.npy"
                np.save(path, tests.pixels)
                runs[file.folder] = _Group((), tests, ImagesThere.of(path))
            sha256 = runs[file.folder].images.sha256
            group = groups.get(sha256, runs[file.folder])
            groups[sha256] = replace(group, files=(*group.files, file))
        return tuple(groups.values())

    # ---- one device

    def _answers_here(self) -> dict[str, Outputs]:
        """What the files that run here answer here."""
        here = devices_of({}, self.registry)[LOCAL]
        found: dict[str, Outputs] = {}
        for group in self._groups:
            able = [file for file in group.files if refusal(file, self._first_batch) is None]
            with self.bar("answers here", len(group.files) * _STEPS) as tell:
                device = _opened(here, LOCAL, tell)
                try:
                    results = device.run(self._job(group, able, 1, self._first_batch, timed=False), tell)
                finally:
                    device.close()
            found |= {name: each.outputs for name, each in results.items() if each.outputs is not None}
        return found

    @property
    def _first_batch(self) -> int:
        return self.request.batches[0]

    def _device(
        self,
        name: str,
        use: Use[DevicePlugin],
        here: Mapping[str, Outputs],
        minutes: list[SustainedRow],
        whole: list[WholeRow],
    ) -> tuple[list[BenchRow], BenchDevice, tuple[Problem, ...]]:
        """All rows of a device, the device, and what is wrong with it altogether; calls without a pause go to
        `minutes`, and the whole ways of an image to `whole`.
        """
        sweep = [(threads, batch) for threads in self.request.threads for batch in self.request.batches]
        steps = sum(steps_there(self._settings(*each)) for each in sweep) * len(self.files)
        rows: list[BenchRow] = []
        facts, wrong, device = None, None, None
        answers: dict[str, DeviceAnswers | str] = {}
        with self.bar(name, steps) as tell:
            try:
                device = _opened(use, name, tell)
                for threads, batch in sweep:
                    for group in self._groups:
                        rows += self._rows(device, name, group, threads, batch, here, answers, whole, tell)
                if self.request.sustained_s:
                    minutes += self._sustained(device, name, tell)
                facts = device.describe()
            except DeviceError as error:
                wrong = error
            finally:
                if device is not None:
                    device.close()
        problems = wrong.problems if wrong is not None else ()
        said = in_a_line(wrong) if wrong is not None else ""
        if problems:
            done = {(row.file, row.threads, row.batch_size) for row in rows}
            rows += [
                row_of(file, threads, batch, {}, self.files, said, device=name)
                for threads, batch in sweep
                for file in self.files
                if (file.name, threads, batch) not in done
            ]
        return rows, BenchDevice(name=name, kind=use.plugin.name, facts=facts, error=said or None), problems

    def _rows(
        self,
        device: Device,
        name: str,
        group: _Group,
        threads: int,
        batch: int,
        here: Mapping[str, Outputs],
        answers: dict[str, DeviceAnswers | str],
        whole: list[WholeRow],
        tell: Callable[[str], None],
    ) -> Iterator[BenchRow]:
        """The rows of files of one number of threads and images; answers are taken with the first of these, and the
        whole way of an image with the first number of images.
        """
        settings = self._settings(threads, batch)
        able = [file for file in group.files if refusal(file, batch) is None]
        found: Mapping[str, FileOnDevice] = {}
        job = self._job(group, able, threads, batch, timed=True)
        if able:
            found = device.run(job, tell)
        measured = {
            name: MeasuredFile(latency, each.peak_memory_bytes)
            for name, each in found.items()
            if (latency := latency_there(each, settings))
        }
        for file in group.files:
            result = found.get(file.name, FileOnDevice(error=refusal(file, batch)))
            if batch == self._first_batch and not result.error:
                whole.append(_whole(file, threads, name, result))
            if file.name not in answers and result.outputs is not None:
                answers[file.name] = self._judged(file, result.outputs, group.tests, here.get(file.name))
            told = answers.get(file.name)
            error = result.error or (told if isinstance(told, str) else None)
            silent = "it gave no answers" if job.answers and result.outputs is None and not error else None
            row = row_of(
                file,
                threads,
                batch,
                measured,
                group.files,
                error,
                device=name,
                answers=told if isinstance(told, DeviceAnswers) else None,
                note=result.note or silent,
            )
            yield replace(row, energy=result.energy)
            if job.energy and result.energy is None and not error:
                reason = result.energy_problem or "this kind of device tells none"
                self.untold.append(f"{name}: the energy of {file.name} is not known: {reason}")

    def _sustained(self, device: Device, name: str, tell: Callable[[str], None]) -> Iterator[SustainedRow]:
        """Each file without a pause, for as long as was asked for, one after the other."""
        parts = tuple(pieces(self.request.sustained_s))
        for threads in self.request.threads:
            for group in self._groups:
                for file in group.files:
                    job = replace(
                        self._job(group, [file], threads, 1, timed=True),
                        answers=False,
                        energy=False,
                        whole=None,
                        turns=tuple((1, seconds) for seconds in parts),
                    )
                    found = device.run(job, tell)[file.name]
                    ends = [sum(parts[: place + 1]) / 60 for place in range(len(parts))]
                    counts = found.means_of or tuple(map(len, found.turns_ms))
                    told = (
                        Minute(end, statistics.median(times), count, *state)
                        for end, times, count, state in zip(ends, found.turns_ms, counts, found.states, strict=False)
                    )
                    yield SustainedRow(
                        file=file.name, threads=threads, minutes=tuple(told), error=found.error, device=name
                    )

    def _settings(self, threads: int, batch: int) -> MeasureSettings:
        return self.request.settings.model_copy(update={"threads": threads, "batch_size": batch})

    def _job(self, group: _Group, files: Sequence[FinishedFile], threads: int, batch: int, *, timed: bool) -> DeviceJob:
        taken = tuple(self._device_file(file) for file in files)
        answers = not timed or (threads, batch) == (self.request.threads[0], self._first_batch)
        job = device_job(taken, group.images, self._settings(threads, batch), answers=answers, timed=timed)
        if not timed or batch != self._first_batch:
            return job
        return replace(job, whole=self.whole, energy=self.request.energy)

    def _device_file(self, file: FinishedFile) -> DeviceFile:
        preprocessing, handed = Preprocessing.from_json(file.card.preprocessing), self.handed[file.name]
        pixels = holds(file) == "pixels"
        return device_file(
            *(file.name, file.path, file.row.sha256, file.exporter, preprocessing),
            takes_pixels=pixels,
            handed=handed,
            card=file.card,
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
            if answers is None or not answers.differing or (row.device, row.file) in told:
                continue
            told.add((row.device, row.file))
            yield answers_otherwise(row.device, row.file, answers)


def _whole(file: FinishedFile, threads: int, device: str, found: FileOnDevice) -> WholeRow:
    """The whole way of an image through a file on a device, or why it is not known."""
    if not found.whole_ms:
        why = found.no_whole or "this kind of device does not take images the whole way"
        return WholeRow(file=file.name, threads=threads, error=why, device=device)
    return WholeRow(file=file.name, threads=threads, pipeline_ms=PipelineTimes.of(found.whole_ms), device=device)


def _opened(use: Use[DevicePlugin], name: str, tell: Callable[[str], None]) -> Device:
    with blamed(use.plugin, "open"):
        return use.plugin.opened(use.options, name, tell)
