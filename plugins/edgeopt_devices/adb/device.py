"""A phone on which files answer and are timed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from edgeopt.plugins import (
    ConnectionLostError,
    DeviceError,
    DeviceFacts,
    DeviceFile,
    DeviceJob,
    FileOnDevice,
    Problem,
    joined,
)
from edgeopt_devices.adb.app import job_folder, open_app
from edgeopt_devices.adb.attached import find
from edgeopt_devices.adb.client import Client
from edgeopt_devices.adb.facts import SCRIPT, STATE, PhoneFacts, facts_in, state_in
from edgeopt_devices.adb.phone import FullError, Phone
from edgeopt_devices.adb.programs import open_program
from edgeopt_devices.adb.runner import Runner, Timed
from edgeopt_devices.options import AdbOptions

if TYPE_CHECKING:
    from edgeopt.plugins import Outputs, Pixels

T = TypeVar("T")

_PAUSES_S = (0.5, 2.0, 5.0, 15.0)  # until a connection that broke is given up; a phone that starts anew needs longer
_PIECE_IMAGES = 50
_PIECE_BYTES = 64 << 20  # as float32
_NO_RUNNER = (
    "name with app the id of an app of `edgeopt app android` in its build bench, or with runner a program such as "
    "benchmark_model: see docs/devices.md"
)
_MEANS = "times are the means of each turn's calls, for this runner tells no single ones"


@dataclass
class _Work:
    """A file of a job, and what it did until now."""

    file: DeviceFile
    outputs: list[Outputs] = field(default_factory=list)
    turns: list[Timed] = field(default_factory=list)
    states: list[tuple[float | None, float | None]] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)
    error: str | None = None


class AdbDevice:
    """The phone that options describe; `name` is for messages, and `waiting` is told why it takes time."""

    def __init__(self, name: str, options: AdbOptions, waiting: Callable[[str], None]) -> None:
        self._name = name
        self._options = options
        self._waiting = waiting
        limit_s = options.connect_timeout_s
        client = Client(name, find(name, options.serial, limit_s), limit_s)
        last = f"am force-stop {options.app}; rm -rf {job_folder(options.app)}" if options.app else ""
        self._phone = Phone(client, options.folder, last, waiting)
        try:
            self._facts = self._look({})
            self._phone.hold()
            self._runner = self._open_runner()
        except BaseException:
            self._phone.release()
            raise

    def _open_runner(self) -> Runner | None:
        """What has files there; None where nothing is named, as for one who looks at a phone alone."""
        options = self._options
        if options.app is not None:
            return open_app(self._phone, options.app, self._name)
        if options.runner is not None:
            return open_program(self._phone, options.runner, self._facts, options.cores, self._name)
        return None

    def _look(self, versions: Mapping[str, str]) -> PhoneFacts:
        return facts_in(self._phone.run(SCRIPT.replace("FOLDER", self._options.folder)).text, versions)

    # ---- what a device does

    def describe(self) -> DeviceFacts:
        """See `Device`."""
        versions = self._runner.versions if self._runner is not None else {}
        return self._again(lambda: self._look(versions)).device

    def put(self, file: Path, sha256: str) -> None:
        """See `Device`."""
        self._again(lambda: self._phone.put(file, sha256))

    def run(self, job: DeviceJob, tell: Callable[[str], None]) -> Mapping[str, FileOnDevice]:
        """See `Device`. What was lost with a connection is the piece or the turn that was at work."""
        runner = self._runner
        if runner is None:
            problem = Problem(f"{self._name}: nothing on it runs files", _NO_RUNNER)
            raise DeviceError(problem)
        works = [_Work(file) for file in job.files]
        with tempfile.TemporaryDirectory(prefix="edgeopt-adb-") as aside:
            for work in works:
                self._try(work, partial(self._prepare, work.file, runner, job, tell))
            if job.answers:
                for work in works:
                    self._answer(work, runner, job, Path(aside), tell)
            for calls, seconds in job.turns:
                for work in works:
                    tell(f"{work.file.name}: turn")
                    self._try(work, partial(self._turn, work, runner, calls, seconds, job))
        return {work.file.name: _done(work) for work in works}

    def clean(self) -> None:
        """See `Device`."""
        self._again(self._phone.clean)
        self.close()

    def close(self) -> None:
        """See `Device`."""
        self._phone.release()

    # ---- a job

    def _prepare(self, file: DeviceFile, runner: Runner, job: DeviceJob, tell: Callable[[str], None]) -> None:
        if file.companions:
            hint = "export one that has all within, or leave this export to another device"
            raise DeviceError(f"{file.name} is several files, and what runs files on a phone takes one", hint=hint)
        runner.require(file, job)
        tell(f"{file.name}: copy")
        self._phone.put(file.path, file.sha256)

    def _answer(self, work: _Work, runner: Runner, job: DeviceJob, aside: Path, tell: Callable[[str], None]) -> None:
        import numpy as np  # heavy: not for whoever only lists devices

        images: Pixels = np.load(job.images, mmap_mode="r")
        piece = max(1, min(_PIECE_IMAGES, _PIECE_BYTES // (4 * images[0].size)))
        for start in range(0, len(images), piece):
            if work.error:
                return
            tell(f"{work.file.name}: answers")
            pixels = np.ascontiguousarray(images[start : start + piece])
            answered = self._try(work, partial(runner.answers, work.file, pixels, job, aside))
            if answered is None:
                continue
            if answered.note:
                work.notes[answered.note] = None
            if answered.outputs is None:
                return
            work.outputs.append(answered.outputs)

    def _turn(self, work: _Work, runner: Runner, calls: int, seconds: float, job: DeviceJob) -> None:
        timed = runner.timed(work.file, calls, seconds, job)
        state = state_in(self._phone.run(STATE).text)
        work.turns.append(timed)
        work.states.append(state)
        if timed.means_of is not None:
            work.notes[_MEANS] = None

    def _try(self, work: _Work, step: Callable[[], T]) -> T | None:
        """Does a step of a file, unless it failed already; where it fails, the others go on."""
        if work.error:
            return None
        try:
            return self._again(step)
        except (ConnectionLostError, FullError):
            raise
        except DeviceError as error:
            told = (f"{each.message}: {each.hint}" if each.hint else each.message for each in error.problems)
            work.error = "; ".join(told)
            return None

    def _again(self, step: Callable[[], T]) -> T:
        """Does a step, and once more after a pause when the connection breaks meanwhile."""
        lost = False
        for pause_s in (*_PAUSES_S, None):
            try:
                if lost:
                    self._reconnect()
                self._phone.hold()
                return step()
            except ConnectionLostError:
                lost = True
                if pause_s is None:
                    raise
                self._waiting(f"{self._name}: the connection broke, it is made again")
                time.sleep(pause_s)
        raise AssertionError("the last pause is none")

    def _reconnect(self) -> None:
        """Raises `ConnectionLostError` while the phone is not there."""
        self._phone.release()
        try:
            find(self._name, self._phone.client.serial, self._options.connect_timeout_s)
        except ConnectionLostError:
            raise
        except DeviceError as error:
            raise ConnectionLostError(*error.problems) from error


def _done(work: _Work) -> FileOnDevice:

    if work.error:
        return FileOnDevice(error=work.error)
    turns = work.turns
    means_of = tuple(turn.means_of for turn in turns if turn.means_of is not None)
    return FileOnDevice(
        outputs=joined(work.outputs) if work.outputs else None,
        turns_ms=tuple(turn.times_ms for turn in turns),
        load_ms=turns[0].load_ms if turns else 0.0,
        first_ms=turns[0].first_ms if turns else 0.0,
        peak_memory_bytes=max((turn.peak_memory_bytes for turn in turns), default=0),
        states=tuple(work.states),
        means_of=means_of if len(means_of) == len(turns) else (),
        note="; ".join(work.notes) or None,
    )


def open_adb(options: AdbOptions, name: str, waiting: Callable[[str], None]) -> AdbDevice:
    """The phone behind adb."""
    return AdbDevice(name, options, waiting)
