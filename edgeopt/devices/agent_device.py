"""A device on which edgeopt's agent works: every device that has Python, wherever it is."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias, TypeVar

from edgeopt.devices.boot import BOOT
from edgeopt.devices.bundle import agent_file
from edgeopt.devices.connection import AgentRefusedError, Connection, Message
from edgeopt.devices.link import Link
from edgeopt.devices.told import facts_told, with_told
from edgeopt.errors import ConnectionLostError, DeviceError, Problem
from edgeopt.fingerprint import file_digest, installed_version, parts_digest
from edgeopt.measure.whole_way import MODULES
from edgeopt.plugins.device import DeviceFacts, DeviceFile, DeviceJob, FileOnDevice, OnDevice, WholeWay

T = TypeVar("T")

FOLDER = ".edgeopt-device"
"""The only folder on a device that anything is left in, below the home of its user."""

_PAUSES_S = (0.5, 2.0, 5.0, 15.0)
_CHUNK = 1 << 20
_HANDED = "edgeopt.devices.handed_file:open_file"


@dataclass(frozen=True)
class AgentSettings:
    """How the agent works on a device.

    `folder` counts from the home of its user. Runtimes come into an environment of `python`, from `wheels` where it is
    given and no network is needed; with `install` off, they must be there for `python` already. Files that work are
    kept to `cores`, by their numbers; as many of the fastest as there are threads where none are named. With `edgeopt`,
    the device is this machine: files stay where they are, and those whose exporters say nothing of devices are opened
    as everywhere.
    """

    folder: str = FOLDER
    python: str = "python3"
    install: bool = True
    wheels: Path | None = None
    cores: tuple[int, ...] = ()
    edgeopt: bool = False


@dataclass(frozen=True)
class _Place:
    """The Python of an environment on a device and the agent there; `no_whole` says why no image is decoded there."""

    python: str
    agent: str
    no_whole: str | None = None


_Places: TypeAlias = dict[tuple[OnDevice, tuple[str, ...]], _Place]
"""By what opens a file, and the modules for the whole way of an image."""


class AgentDevice:
    """A device that is reached over a `Link`; `name` is for messages, and `waiting` is told why it takes time."""

    def __init__(
        self, name: str, link: Link, settings: AgentSettings, waiting: Callable[[str], None] = lambda _: None
    ) -> None:
        self._name = name
        self._link = link
        self._settings = settings
        self._waiting = waiting
        self._connection: Connection | None = None
        self._files: set[str] = set()
        self._folder = settings.folder
        self._connect()

    # ---- what a device does

    def describe(self) -> DeviceFacts:
        """See `Device`."""
        return self._again(lambda: facts_told(self._answer({"do": "facts"})))

    def put(self, file: Path, sha256: str) -> None:
        """See `Device`."""
        self._again(lambda: self._put(file, sha256))

    def run(self, job: DeviceJob, tell: Callable[[str], None]) -> Mapping[str, FileOnDevice]:
        """See `Device`."""
        found: dict[str, FileOnDevice] = {}
        with tempfile.TemporaryDirectory(prefix="edgeopt-agent-") as aside:
            self._again(lambda: self._run(job, Path(aside), tell, found))
        return {file.name: found.get(file.name, FileOnDevice()) for file in job.files}

    def clean(self) -> None:
        """See `Device`."""
        self._again(lambda: self._answer({"do": "clean"}))
        self.close()

    def close(self) -> None:
        """See `Device`."""
        if self._connection is not None:
            self._connection.ask({"do": "leave"})
            self._connection.close()
            self._connection = None

    # ---- the connection

    def _connect(self) -> Connection:
        if self._connection is not None:
            return self._connection
        settings = self._settings
        if settings.edgeopt:
            connection = Connection(
                self._link,
                [settings.python, "-m", "edgeopt.devices.agent", "session", f"~/{settings.folder}"],
                self._name,
            )
        else:
            agent = agent_file()
            digest = hashlib.sha256(agent).hexdigest()
            program = [settings.python, "-c", BOOT, settings.folder, str(len(agent)), digest, settings.python]
            connection = Connection(self._link, program, self._name)
        try:
            if not settings.edgeopt and not self._hear(connection)["have"]:
                connection.write(agent)
            here = self._hear(connection)
            if here["event"] == "waiting":
                self._waiting(f"{self._name}: another run has it")
                here = self._hear(connection)
        except BaseException:
            connection.close()
            raise
        self._files, self._folder = set(here["files"]), here["folder"]
        self._connection = connection
        return connection

    def _hear(self, connection: Connection) -> Message:
        try:
            return connection.read()
        except AgentRefusedError as error:
            raise self._explained(error) from error

    def _answer(self, request: Message) -> Message:
        connection = self._connect()
        connection.ask(request)
        return self._hear(connection)

    def _again(self, work: Callable[[], T]) -> T:
        """Does `work`, and once more after a pause when the connection breaks meanwhile."""
        for pause_s in (*_PAUSES_S, None):
            try:
                return work()
            except ConnectionLostError:
                if self._connection is not None:
                    with contextlib.suppress(OSError):
                        self._connection.close()
                self._connection = None
                if pause_s is None:
                    raise
                self._waiting(f"{self._name}: the connection broke, it is made again")
                time.sleep(pause_s)
        raise AssertionError("the last pause is none")

    def _explained(self, error: AgentRefusedError) -> DeviceError:
        """The error with what to do about it."""
        settings = self._settings
        hints = {
            "python": "install Python 3.11 or newer there, and name it with the option python",
            "venv": "install python3-venv there (apt install python3-venv), or set install = false",
            "network": "let it reach a package index, or name a folder of wheels for it with the option wheels: "
            "see docs/devices.md",
            "wheel": "the options wheels and python say where packages come from; for another architecture fetch its "
            "wheels with `pip download --platform`: see docs/devices.md",
            "digest": "try again; where it stays so, its disk or the way there is broken",
            "missing": f"install it for {settings.python} there, or leave install = false out",
            "full": f"free some space there, or remove what edgeopt left with `edgeopt devices clean` ({self._folder})",
            "storage": f"let its user write to {settings.folder}, or name another folder with the option folder",
        }
        message = f"{self._name}: its disk is full" if error.kind == "full" else error.problems[0].message
        return AgentRefusedError(Problem(message, hints.get(error.kind)), error.kind, error.said)

    # ---- files

    def _put_together(self, file: DeviceFile) -> str:
        """Puts a file there, and beside it those that it cannot be opened without; returns its place there."""
        parts = ((file.path, file.sha256), *file.companions)
        for part, digest in parts:
            self._require(part, digest)
        if not file.companions or self._settings.edgeopt:  # there they lie beside each other already
            self._put(file.path, file.sha256)
            return self._place(file.path, file.sha256)
        place = f"files/{parts_digest([digest for _, digest in parts])}"
        self._answer({"do": "place", "place": place})
        for part, digest in parts:
            self._push(part, place, part.name, digest)
        return f"{place}/{file.path.name}"

    def _put(self, file: Path, sha256: str) -> None:
        self._require(file, sha256)
        if not self._settings.edgeopt:  # else it is on this machine already
            self._push(file, "files", f"{sha256}{file.suffix}", sha256)

    def _require(self, file: Path, sha256: str) -> None:
        try:
            digest = file_digest(file)
        except OSError as error:
            raise DeviceError(f"{self._name}: {file} cannot be read: {error.strerror}") from error
        if digest != sha256:
            hint = "it changed since it was made: run the recipe again"
            raise DeviceError(f"{self._name}: {file} has another sha256 than {sha256[:12]}…", hint=hint)

    def _push(self, file: Path, place: str, name: str, sha256: str) -> None:
        self._connect()
        if f"{place}/{name}" in self._files:
            return
        done = self._link.push(file, f"{self._folder}/{place}/{name}.part")
        if done.returncode:
            free = self._answer({"do": "drop", "place": place, "name": name})["free_bytes"]
            if free < file.stat().st_size or "No space left" in done.stderr or "Disk quota" in done.stderr:
                full = AgentRefusedError(Problem(f"{self._name}: its disk is full"), "full")
                raise self._explained(full)
            problem = self._link.explain(done.returncode, done.stderr)
            kind = ConnectionLostError if self._link.is_lost(done.returncode) else DeviceError
            raise kind(Problem(f"{self._name}: {problem.message}", problem.hint))
        self._answer({"do": "keep", "place": place, "name": name, "sha256": sha256})
        self._files.add(f"{place}/{name}")

    # ---- a job

    def _run(self, job: DeviceJob, aside: Path, tell: Callable[[str], None], found: dict[str, FileOnDevice]) -> None:
        ready: list[tuple[DeviceFile, Message]] = []
        environments: _Places = {}
        for file in job.files:
            try:
                message = self._prepared(file, aside, environments, tell, whole=job.whole is not None)
                if no_whole := message.pop("no_whole"):
                    found[file.name] = replace(found.get(file.name, FileOnDevice()), no_whole=no_whole)
                ready.append((file, message))
            except AgentRefusedError as error:
                if error.kind not in ("venv", "network", "wheel", "missing"):
                    raise
                found[file.name] = FileOnDevice(error=_one_line(error))
            except DeviceError as error:
                if isinstance(error, ConnectionLostError):
                    raise
                found[file.name] = FileOnDevice(error=_one_line(error))
        if not ready:
            return
        self._put(job.images, job.images_sha256)
        asked: Message = {
            "files": [message for _, message in ready],
            "images": self._place(job.images, job.images_sha256),
            **{name: getattr(job, name) for name in ("answers", "batch_size", "threads", "warmup", "timeout_s")},
            "turns": job.turns,
            **{name: True for name in ("energy", "turn_energy") if getattr(job, name)},
            "cores": self._settings.cores,
            "whole": self._whole(job.whole) if job.whole else None,
        }
        key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]
        asked["have"] = [number for number, (file, _) in enumerate(ready) if _has_answered(found.get(file.name))]
        connection = self._connect()
        connection.ask({"do": "run", "key": key, "job": asked})
        while (message := self._hear(connection))["event"] != "ran":
            if message["event"] == "step":
                tell(message["text"])
                continue
            name = ready[message["file"]][0].name
            found[name] = with_told(found.get(name, FileOnDevice()), message)
        connection.ask({"do": "forget", "key": key})

    def _whole(self, whole: WholeWay) -> Message:
        """The whole way of an image as the agent takes it; the image is there then."""
        self._put(whole.image, whole.sha256)
        return {"image": self._place(whole.image, whole.sha256), "warmup": whole.warmup, "runs": whole.runs}

    def _prepared(
        self,
        file: DeviceFile,
        aside: Path,
        environments: _Places,
        tell: Callable[[str], None],
        *,
        whole: bool,
    ) -> Message:
        """A file as the agent takes it, with all that it needs there; where an image is to go the whole `way` through
        it, that, or `no_whole`, which says why not.
        """
        way, no_whole = _way(file) if whole else (None, None)
        given: Message = {"name": file.name, "scale": file.scale, "offset": file.offset}
        given |= {"way": way, "no_whole": no_whole}
        opener = file.on_device
        if self._settings.edgeopt and file.handed is not None and opener is None:
            self._put_together(file)
            command = [self._settings.python, "-m", "edgeopt.devices.agent", "child"]
            return {**given, "file": str(file.handed.resolve()), "opener": _HANDED, "command": command}
        if opener is None:
            hint = "its plugin does not say how (ExporterPlugin.on_device)"
            raise DeviceError(f"{self._name}: a file of this exporter is not opened there", hint=hint)
        needed = (*MODULES, *file.answering) if way else ()
        if (opener, needed) not in environments:
            environments[opener, needed] = self._place_of(opener, needed, aside, tell)
        there = environments[opener, needed]
        tell(f"{file.name}: copy")
        place = self._put_together(file)
        command = [there.python, there.agent, "child"]
        if there.no_whole:
            given |= {"way": None, "no_whole": there.no_whole}
        return {**given, "file": place, "opener": f"{opener.modules[0]}:open_file", "command": command}

    def _place_of(self, opener: OnDevice, modules: tuple[str, ...], aside: Path, tell: Callable[[str], None]) -> _Place:
        """Where files are opened; where `modules` for the whole way of an image are needed, with these and Pillow, or
        without where that cannot be had.
        """
        no_whole = None
        if modules:
            with_images = OnDevice((*opener.modules, *modules), (*opener.requires, "pillow"))
            try:
                return self._environment(with_images, aside, tell)
            except AgentRefusedError as error:
                if error.kind not in ("network", "wheel", "missing"):
                    raise
                no_whole = f"images cannot be decoded there: {error.problems[0].message}"
        return replace(self._environment(opener, aside, tell), no_whole=no_whole)

    def _environment(self, opener: OnDevice, aside: Path, tell: Callable[[str], None]) -> _Place:
        """The Python on the device in which a runtime is, and the agent that opens its files."""
        packages = sorted({f"{name}=={_version(name)}" for name in ("numpy", *opener.requires)})
        wheels = self._push_wheels() if self._settings.install and self._settings.wheels else ""
        tell(f"environment: {', '.join(packages)}")
        how = {"wheels": wheels, "install": self._settings.install, "python": self._settings.python}
        request = {"do": "environment", "packages": packages, **how}
        python = self._answer(request)["python"]
        content = agent_file(opener.modules)
        digest = hashlib.sha256(content).hexdigest()
        agent = aside / f"{digest}.pyz"
        agent.write_bytes(content)
        self._put(agent, digest)
        return _Place(python, str(agent) if self._settings.edgeopt else f"{self._folder}/files/{digest}.pyz")

    def _push_wheels(self) -> str:
        """Puts the wheels of the folder that the options name into one of their own there; gives its name."""
        folder = self._settings.wheels
        found = {wheel: file_digest(wheel) for wheel in sorted(folder.glob("*.whl"))} if folder else {}
        if not found:
            raise DeviceError(f"{self._name}: there are no wheels in {folder}", hint="see docs/devices.md")
        names = [f"{wheel.name} {digest}" for wheel, digest in found.items()]
        place = f"wheels/{hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]}"
        self._answer({"do": "place", "place": place})
        for wheel, digest in found.items():
            self._push(wheel, place, wheel.name, digest)
        return place

    def _place(self, file: Path, sha256: str) -> str:
        return str(file.resolve()) if self._settings.edgeopt else f"files/{sha256}{file.suffix}"


def _way(file: DeviceFile) -> tuple[Message | None, str | None]:
    """How an image goes the whole way through a file, or why it does not."""
    card = file.card
    if card is None:
        return None, "it has no card, which says how images become its input and its outputs answers"
    if not file.answering:
        told = f"the task {card.task} has no code for devices (TaskPlugin.device_modules)"
        return None, f"the answer is not timed there because {told}: see docs/tasks.md"
    how = {"preprocessing": card.preprocessing, "answering": file.answering[0], "decision": card.decision}
    return how, None


def _version(name: str) -> str:
    """The version of a distribution here, without what tells a build of it from others."""
    version = installed_version(name)
    if version is None:
        raise DeviceError(f"{name} is not installed here, so that nobody knows which version a device should have")
    return version.partition("+")[0]


def _has_answered(file: FileOnDevice | None) -> bool:
    return file is not None and file.outputs is not None


def _one_line(error: DeviceError) -> str:
    return "; ".join(f"{each.message}: {each.hint}" if each.hint else each.message for each in error.problems)
