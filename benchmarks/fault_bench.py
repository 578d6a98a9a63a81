"""Where faults are brought about: commands of edgeopt on the tiny plugins of the tests, and how the end of one is judged.

Every process of a command carries a mark in its environment, by which it is found below /proc: Linux only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from kills import GONE_S, MARK, NOT_COMPARED, TINY_PLUGIN, compared, marked

from edgeopt.workers.layout import Record

RUN_NAME, STUDY_NAME = "faults", "study"
LONGEST_S = 900.0
RECIPE = """\
schema = 1
name = "faults"
baseline = false
dataset = { use = "stripes", image_size = 16 }
model = { use = "linear" }
measure = { threads = 1, warmup = 1, runs = 5, rounds = 1 }

[[passes]]
use = "fit-stripes"
epochs = 4
seconds = 0.1

[[passes]]
use = "round-weights"

[[exports]]
use = "npz"
"""
STUDY = """
[tune]
goal = { accuracy_drop = 0.5 }
minimize = "accuracy_drop"
trials = 2

[tune.space]
"passes.round-weights.steps" = [2, 64]
"""


class How(StrEnum):
    """How a command ended."""

    RIGHT = "right bytes"
    MESSAGE = "one message"
    KILLED = "killed"


@dataclass(frozen=True)
class Ending:
    """How a command ended that met a fault, what it said, and what was wrong about it: nothing, as is to be hoped.

    `went_on` counts the same command afterwards, without the fault, that made the right bytes.
    """

    how: How
    said: str = ""
    wrong: tuple[str, ...] = ()
    went_on: int = 0


@dataclass(frozen=True)
class Fault:
    """A fault by its name, what it is in words, and what brings it about, time and again."""

    name: str
    told: str
    endings: Callable[[Bench], Iterator[Ending]]
    needs_root: bool = False


@dataclass(frozen=True)
class Work:
    """A command that makes the same bytes each time, into a folder `out`."""

    command: tuple[str, ...]
    names: tuple[str, ...]
    """Of the folders in `out` that hold what it made for good."""
    plugins: tuple[Path, ...] = (TINY_PLUGIN,)

    def arguments(self, out: Path) -> list[str]:
        plugins = [word for plugin in self.plugins for word in ("--plugin", str(plugin))]
        return [sys.executable, "-m", "edgeopt", *self.command, "--out", str(out), *plugins]

    def made(self, out: Path) -> dict[str, str]:
        """The digest of each file that must be the same each time."""
        files = {
            file.relative_to(out).as_posix(): compared(file)
            for name in self.names
            for file in (out / name).rglob("*")
            if file.is_file() and file.name not in NOT_COMPARED
        }
        trials = out / f"{STUDY_NAME}-tune" / "trials.jsonl"
        if "tune" in self.command and trials.exists():
            files["trials"] = _tried(trials)
            files["winner"] = (trials.parent / "winner.toml").read_bytes()
        return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def _tried(trials: Path) -> bytes:
    lines = [json.loads(line) for line in trials.read_text().splitlines()[1:]]
    return json.dumps(
        [[each[name] for name in ("number", "values", "ending", "objectives")] for each in lines]
    ).encode()


@dataclass(frozen=True)
class Started:
    """A command at work, with all its processes."""

    process: subprocess.Popen[str]
    mark: str
    log: Path

    def processes(self) -> list[int]:
        return list(marked(f"{MARK}={self.mark}".encode()))

    def wait(self, seconds: float = LONGEST_S) -> int | None:
        """Its exit code; None where it has not ended in time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(max(seconds, 0.0))
        return None

    def signal_all(self, number: int) -> None:
        for process in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    def kill_all(self) -> None:
        """SIGKILL for every process, until none is left."""
        while self.processes():
            self.signal_all(signal.SIGKILL)
        self.process.wait()

    def left_over(self) -> int:
        """How many processes are still there a minute after the command has ended; they are ended then."""
        end = time.monotonic() + GONE_S
        while (left := self.processes()) and time.monotonic() < end:
            time.sleep(0.05)
        self.kill_all()
        return len(left)

    def said(self) -> str:
        return self.log.read_text(errors="replace")


@dataclass(frozen=True)
class Bench:
    """Where a campaign works: `folder` is its own, `kills` how many there are to be, and `stop_s` how long processes are
    stopped.
    """

    folder: Path
    random: random.Random
    kills: int
    stop_s: float
    _known: dict[Work, tuple[Mapping[str, str], float]] = field(default_factory=dict)

    @cached_property
    def run(self) -> Work:
        return Work(("run", str(self.written("recipe.toml", RECIPE))), (RUN_NAME,))

    @cached_property
    def tune(self) -> Work:
        text = RECIPE.replace(RUN_NAME, STUDY_NAME, 1) + STUDY
        return Work(("tune", str(self.written("study.toml", text))), (f"{STUDY_NAME}-winner",))

    def written(self, name: str, text: str) -> Path:
        """A file in the campaign's folder."""
        file = self.folder / name
        file.write_text(text)
        return file

    def expected(self, work: Work) -> Mapping[str, str]:
        """What a command makes that nothing disturbs."""
        return self._undisturbed(work)[0]

    def seconds(self, work: Work) -> float:
        """How long it takes then."""
        return self._undisturbed(work)[1]

    def finished(self, work: Work) -> Path:
        """The folder in which it did; not to be changed."""
        self._undisturbed(work)
        return self._quiet(work)

    def _quiet(self, work: Work) -> Path:
        return self.folder / "-".join(("quiet", work.command[0], Path(work.command[1]).stem, *work.command[2:]))

    def _undisturbed(self, work: Work) -> tuple[Mapping[str, str], float]:
        if work not in self._known:
            out = self._quiet(work)
            start = time.perf_counter()
            started = self.start(work, out)
            if started.wait() != 0:
                sys.exit(f"{work.command[0]} failed with nothing in its way:\n{started.said()}")
            self._known[work] = work.made(out), time.perf_counter() - start
        return self._known[work]

    def new_out(self) -> Path:
        """A folder that is not there yet."""
        return self.folder / f"out-{uuid.uuid4().hex[:8]}"

    def start(
        self,
        work: Work | list[str],
        out: Path | None = None,
        environment: Mapping[str, str] | None = None,
        before: Callable[[], None] | None = None,
    ) -> Started:
        """Starts a command; `before` is called in its process before it begins."""
        mark = uuid.uuid4().hex
        log = self.folder / f"said-{mark}.txt"
        arguments = work.arguments(out or self.new_out()) if isinstance(work, Work) else work
        with log.open("w") as file:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if "serve" in arguments else subprocess.DEVNULL,
                stderr=file,
                text=True,
                env={**os.environ, "COLUMNS": "300", MARK: mark, **(environment or {})},
                preexec_fn=before,  # noqa: PLW1509 - no thread of ours is at work then
            )
        return Started(process, mark, log)

    def judged(self, work: Work, out: Path, started: Started, code: int | None, *, goes_on: bool = False) -> Ending:
        """How a command ended, and, where it `goes_on`, whether the same one makes the right bytes afterwards."""
        wrong = []
        if code is None:
            wrong.append("it did not end")
        if left := started.left_over():
            wrong.append(f"{left} processes are left")
        wrong += halfwritten(out)
        if code == 0:
            how = How.RIGHT
            wrong += self._differing(work, out)
        elif code is None or code < 0:
            how = How.KILLED
        else:
            how = How.MESSAGE
            wrong += _unclear(started.said())
        said = message(started.said()) if how is How.MESSAGE else ""
        went_on = 0
        if goes_on:
            again = self.start(work, out)
            other = self.judged(work, out, again, again.wait())
            went_on = int(other.how is How.RIGHT and not other.wrong)
            wrong += [] if went_on else [f"afterwards: {other.said} {'; '.join(other.wrong)}"]
        started.log.unlink()
        return Ending(how, said, tuple(wrong), went_on)

    def _differing(self, work: Work, out: Path) -> list[str]:
        pairs = work.made(out).items() ^ self.expected(work).items()
        if not pairs:
            return []
        shutil.copytree(out, kept := Path(tempfile.mkdtemp(prefix="edgeopt-fault-")) / "out", symlinks=True)
        return [f"other bytes: {', '.join(sorted({name for name, _ in pairs}))}, see {kept}"]


def message(said: str) -> str:
    """What a command said went wrong, the first of it."""
    lines = said.splitlines()
    return next((line for line in lines if "error:" in line or "bug" in line or ".toml:" in line), "".join(lines[-1:]))


def _unclear(said: str) -> list[str]:
    """What is wrong with the words of a command that gave up."""
    wrong = []
    if "Traceback" in said:
        wrong.append("a traceback")
    if "this is a bug" in said:
        wrong.append("it calls itself a bug")
    if not message(said):
        wrong.append("it said nothing")
    return [f"{each}: {message(said)}" for each in wrong]


def halfwritten(out: Path) -> list[str]:
    """Files and results below `out` that stand under their names and are not whole."""
    wrong = []
    for folder in (out / ".store").glob("??/*"):
        record = Record.of(folder)
        if record is None or not record.is_whole(folder):
            wrong.append(f"half a result: {record.label if record else folder.name[:8]}")
    for file in (each for name in ("*/*.json", "*/*.toml", "*/*/*/*.json") for each in out.glob(name)):
        try:
            (json.loads if file.suffix == ".json" else tomllib.loads)(file.read_text())
        except ValueError:
            wrong.append(f"half a file: {file.relative_to(out)}")
    return wrong


def stop(processes: list[int], seconds: float) -> None:
    """SIGSTOP for some processes, for a while."""
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)
        if number == signal.SIGSTOP:
            time.sleep(seconds)
