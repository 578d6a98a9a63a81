"""Files of finished runs on devices: what they answer there and how fast, beside what they answer here."""

from __future__ import annotations

import hashlib
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
from edgeopt.bench.table import BenchDevice, BenchRow, DeviceAnswers, Minute, SustainedRow
from edgeopt.errors import DeviceError, Problem, UserError
from edgeopt.measure.latency import Start, summarize, summarize_means, turns
from edgeopt.options import MeasureSettings
from edgeopt.pipeline.kept_tests import KeptTests, kept_tests
from edgeopt.pipeline.results import MeasuredFile
from edgeopt.pipeline.timing import steps_of
from edgeopt.plugins.blame import blamed
from edgeopt.plugins.declarations import DevicePlugin
from edgeopt.plugins.device import Device, DeviceFile, DeviceJob, FileOnDevice
from edgeopt.plugins.registry import Registry
from edgeopt.plugins.use import Use
from edgeopt.preprocessing import Preprocessing
from edgeopt.recipe.devices import LOCAL, Devices, devices_in, devices_of
from edgeopt.report import figures
from edgeopt.report.finished_files import FinishedFile
from edgeopt.report.reading import read_report

if TYPE_CHECKING:  # NumPy is heavy, and only named here
    from edgeopt.arrays import Logits

Bar = Callable[[str, int], AbstractContextManager[Callable[[str], None]]]
_STEPS = 3  # of a file beside those of timing it: its environment, its copy, its answers


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
    images: Path
    sha256: str


@dataclass(frozen=True)
class OnDevices:
    """What came of it: see `Bench`."""

    rows: tuple[BenchRow, ...] = ()
    devices: tuple[BenchDevice, ...] = ()
    sustained: tuple[SustainedRow, ...] = ()
    verdicts: tuple[str, ...] = ()
    image: str = ""
    failures: tuple[Problem, ...] = ()
    untold: tuple[str, ...] = ()


@dataclass(frozen=True)
class DeviceWork:
    """One benchmark on devices. `handed` holds for each file what a process of this machine opens it from."""

    request: BenchRequest
    devices: Devices
    files: Sequence[FinishedFile]
    handed: Mapping[str, Path]
    registry: Registry
    aside: Path
    bar: Bar
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
        failures: list[Problem] = []
        for name, use in self.devices.items():
            found, summary, wrong = self._device(name, use, here, minutes)
            rows += found
            summaries.append(summary)
            failures += wrong
        count = max(len(group.tests.labels) for group in self._groups)
        image = f"the first {count:,} test images, of which the first are timed"
        verdicts = tuple(self._verdicts(rows, summaries))
        return OnDevices(
            tuple(rows), tuple(summaries), tuple(minutes), verdicts, image, tuple(failures), tuple(self.untold)
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
                runs[file.folder] = _Group((), tests, path, hashlib.sha256(path.read_bytes()).hexdigest())
            group = groups.get(runs[file.folder].sha256, runs[file.folder])
            groups[group.sha256] = replace(group, files=(*group.files, file))
        return tuple(groups.values())

    # ---- one device

    def _answers_here(self) -> dict[str, Logits]:
        """What the files that run here answer here."""
        here = devices_of({}, self.registry)[LOCAL]
        found: dict[str, Logits] = {}
        for group in self._groups:
            able = [file for file in group.files if refusal(file, self._first_batch) is None]
            with self.bar("answers here", len(group.files) * _STEPS) as tell:
                device = _opened(here, LOCAL, tell)
                try:
                    results = device.run(self._job(group, able, 1, self._first_batch, timed=False), tell)
                finally:
                    device.close()
            found |= {name: each.logits for name, each in results.items() if each.logits is not None}
        return found

    @property
    def _first_batch(self) -> int:
        return self.request.batches[0]

    def _device(
        self, name: str, use: Use[DevicePlugin], here: Mapping[str, Logits], minutes: list[SustainedRow]
    ) -> tuple[list[BenchRow], BenchDevice, tuple[Problem, ...]]:
        """All rows of a device, the device, and what is wrong with it as a whole; calls without a pause go to
        `minutes`.
        """
        sweep = [(threads, batch) for threads in self.request.threads for batch in self.request.batches]
        steps = sum(steps_of(self._settings(*each)) + _STEPS for each in sweep) * len(self.files)
        rows: list[BenchRow] = []
        facts, wrong, device = None, None, None
        answers: dict[str, DeviceAnswers | str] = {}
        with self.bar(name, steps) as tell:
            try:
                device = _opened(use, name, tell)
                for threads, batch in sweep:
                    for group in self._groups:
                        rows += self._rows(device, name, group, threads, batch, here, answers, tell)
                if self.request.sustained_s:
                    minutes += self._sustained(device, name, tell)
                facts = device.describe()
            except DeviceError as error:
                wrong = error
            finally:
                if device is not None:
                    device.close()
        problems = wrong.problems if wrong is not None else ()
        said = "; ".join(f"{each.message} ({each.hint})" if each.hint else each.message for each in problems)
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
        here: Mapping[str, Logits],
        answers: dict[str, DeviceAnswers | str],
        tell: Callable[[str], None],
    ) -> Iterator[BenchRow]:
        """The rows of files of one number of threads and images; answers are taken with the first of these."""
        settings = self._settings(threads, batch)
        able = [file for file in group.files if refusal(file, batch) is None]
        found: Mapping[str, FileOnDevice] = {}
        job = self._job(group, able, threads, batch, timed=True)
        if able:
            found = device.run(job, tell)
        measured = {file: _measured(each, settings) for file, each in found.items() if each.turns_ms and not each.error}
        for file in group.files:
            result = found.get(file.name, FileOnDevice(error=refusal(file, batch)))
            if file.name not in answers and result.logits is not None:
                answers[file.name] = _judged(file, result.logits, group.tests, here.get(file.name))
            told = answers.get(file.name)
            error = result.error or (told if isinstance(told, str) else None)
            silent = "it gave no answers" if job.answers and result.logits is None and not error else None
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
        settings = self._settings(threads, batch)
        return DeviceJob(
            files=tuple(self._device_file(file) for file in files),
            images=group.images,
            images_sha256=group.sha256,
            answers=not timed or (threads, batch) == (self.request.threads[0], self._first_batch),
            batch_size=batch,
            threads=threads,
            warmup=settings.warmup,
            turns=tuple((turn.calls, turn.seconds) for turn in turns(settings)) if timed else (),
            timeout_s=settings.timeout_s,
            energy=timed and self.request.energy and batch == self._first_batch,
        )

    def _device_file(self, file: FinishedFile) -> DeviceFile:
        scale, offset = Preprocessing.from_json(file.card.preprocessing).scale_and_offset()
        takes_pixels = holds(file) == "pixels"
        return DeviceFile(
            name=file.name,
            path=file.path,
            sha256=file.row.sha256 or hashlib.sha256(file.path.read_bytes()).hexdigest(),
            scale=None if takes_pixels else scale,
            offset=None if takes_pixels else offset,
            on_device=file.exporter.on_device,
            handed=self.handed[file.name],
            card=file.card,
        )

    # ---- what must not be overlooked

    def _verdicts(self, rows: Sequence[BenchRow], devices: Sequence[BenchDevice]) -> Iterator[str]:
        yield from (f"{each.name} was not measured to the end: {each.error}" for each in devices if each.error)
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
            ties = f" ({answers.near_ties} of them within rounding)" if answers.near_ties else ""
            yield (
                f"{row.device} answers otherwise than this machine: {row.file}, {answers.differing} of "
                f"{answers.images} images{ties}; accuracy there {figures.percent(answers.test_accuracy)}, its logits "
                f"differ by up to {answers.max_logit_difference:.3g}"
            )


def _measured(file: FileOnDevice, settings: MeasureSettings) -> MeasuredFile:
    start = Start(file.load_ms, file.first_ms)
    if file.means_of:
        latency = summarize_means([mean_ms for (mean_ms,) in file.turns_ms], file.means_of, settings, start)
    else:
        latency = summarize(file.turns_ms, settings, start)
    return MeasuredFile(latency, file.peak_memory_bytes)


def _opened(use: Use[DevicePlugin], name: str, tell: Callable[[str], None]) -> Device:
    with blamed(use.plugin, "open"):
        return use.plugin.opened(use.options, name, tell)


def _judged(file: FinishedFile, logits: Logits, tests: KeptTests, here: Logits | None) -> DeviceAnswers | str:
    """What a file's answers on a device are worth, or why they are worth nothing."""
    import numpy as np

    from edgeopt.measure.answers import verify

    try:
        own = verify(tests.task, logits, tests.program(file.row.role), tests.labels)
        beside = verify(tests.task, logits, here, tests.labels) if here is not None else None
    except UserError as error:
        return str(error.problems[0].message)
    same = here is not None and np.array_equal(logits, here)
    return DeviceAnswers(
        images=own.images,
        test_accuracy=own.test_accuracy,
        agreement=own.agreement,
        differing=beside.differing if beside else None,
        near_ties=beside.near_ties if beside else None,
        max_logit_difference=0.0 if same else beside.max_logit_difference if beside else None,
    )
