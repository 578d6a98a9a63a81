"""Runs that are killed at random instants, the parent alone or all its processes at once, and started again.

Each must end in the bytes of a run that nothing disturbed, and leave no process behind. Every process of a run carries a
mark in its environment, by which it is found below /proc: Linux only.

    python benchmarks/kills.py [KILLS [RECIPE]]

Without a recipe it is the tiny one of the tests: seconds for a run, with a training that keeps checkpoints.
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
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bars import Bar, finish

ROOT = Path(__file__).parent.parent
TINY_PLUGIN = ROOT / "tests" / "tiny_plugin.py"
SEED = 17
GONE_S = 60.0  # that a worker may take to see that its parent is gone: one that has just begun imports first
MARK = "EDGEOPT_KILLS_MARK"
RECIPE = """
schema = 1
name = "killed"
dataset = { use = "stripes", image_size = 16 }
model = { use = "linear" }
measure = { threads = 1, warmup = 1, runs = 5, rounds = 1 }

[[passes]]
use = "fit-stripes"
epochs = 6
seconds = 0.3

[[passes]]
use = "round-weights"

[[exports]]
use = "npz"

[[exports]]
use = "npz"
name = "again"
"""
NOT_COMPARED = ("report.json", "report.html", "log.txt")  # they hold latencies and times


@dataclass
class Run:
    """One `edgeopt run` in a folder of its own, with all its processes."""

    recipe: Path
    out: Path
    log: Path
    mark: str = ""

    def start(self) -> subprocess.Popen[bytes]:
        self.mark = uuid.uuid4().hex
        command = [sys.executable, "-m", "edgeopt", "run", str(self.recipe), "--out", str(self.out)]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*command, "--plugin", str(TINY_PLUGIN)], stdout=log, stderr=log, env=os.environ | {MARK: self.mark}
            )

    def finish(self) -> float:
        """Runs to the end; the seconds that it took."""
        start = time.perf_counter()
        if code := self.start().wait():
            sys.exit(f"the run ended with code {code}, see {self.log}")
        return time.perf_counter() - start

    def processes(self) -> list[int]:
        return list(marked(f"{MARK}={self.mark}".encode()))

    def bytes(self) -> dict[str, str]:
        """The digest of each file that a run must make alike."""
        files = (file for file in self.out.glob("[!.]*/**/*") if file.is_file() and file.name not in NOT_COMPARED)
        return {str(file.relative_to(self.out)): hashlib.sha256(compared(file)).hexdigest() for file in files}


def compared(file: Path) -> bytes:
    """What must be alike of a file: of a run's record all but when its files were written, and how large those are that
    are not compared.
    """
    if file.name != "run.json":
        return file.read_bytes()
    record = json.loads(file.read_bytes())
    for name, facts in record["files"].items():
        del facts["modified_ns"]
        if name in NOT_COMPARED:
            del facts["size_bytes"]
    return json.dumps(record, sort_keys=True).encode()


def marked(mark: bytes) -> Iterator[int]:
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            stat = (process / "stat").read_text()
            is_dead = stat.rpartition(")")[2].split()[0] == "Z"
            if not is_dead and mark in (process / "environ").read_bytes().split(b"\0"):
                yield int(process.name)


def kill_all(run: Run) -> None:
    """SIGKILL for every process, until none is left."""
    while processes := run.processes():
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def seconds_until_gone(run: Run) -> float:
    start = time.perf_counter()
    while run.processes():
        if time.perf_counter() - start > GONE_S:
            return float("inf")
        time.sleep(0.05)
    return time.perf_counter() - start


def main(kills: int, recipe: Path | None) -> None:
    folder = Path(tempfile.mkdtemp(prefix="edgeopt-kills-"))
    if recipe is None:
        recipe = folder / "recipe.toml"
        recipe.write_text(RECIPE)
    log = folder / "log.txt"
    quiet = Run(recipe, folder / "quiet", log)
    length = quiet.finish()
    expected = quiet.bytes()
    instants = random.Random(SEED)
    others = left = 0
    print(f"an undisturbed run: {length:.1f} s, {len(expected)} files")
    print(f"{'kill':>4} {'at, s':>7} {'of':<8} {'finished':>9} {'all gone, s':>12} {'again, s':>9}  bytes")
    for number in range(kills):
        run = Run(recipe, folder / "killed", log)
        shutil.rmtree(run.out, ignore_errors=True)
        at, alone = instants.uniform(0, length), number % 2 == 0
        parent = run.start()
        with contextlib.suppress(subprocess.TimeoutExpired):
            parent.wait(at)
        finished = parent.poll() is not None
        if alone:
            parent.kill()
        else:
            kill_all(run)
        parent.wait()
        gone = seconds_until_gone(run)
        if gone == float("inf"):
            left += len(run.processes())
            kill_all(run)
        again = run.finish()
        left += len(run.processes())
        same = run.bytes() == expected
        others += not same
        said = f"{number:>4} {at:>7.2f} {'parent' if alone else 'all':<8} {'yes' if finished else '':>9}"
        print(f"{said} {gone:>12.2f} {again:>9.1f}  {'same' if same else 'OTHER'}", flush=True)
        if not same:
            differing = sorted({name for name, _ in run.bytes().items() ^ expected.items()})
            run.out.rename(kept := folder / f"other-{number}")
            print(f"     {', '.join(differing)}: see {kept}")
    if not others:
        shutil.rmtree(folder)
    finish(Bar("kills_with_other_bytes", others, 0), Bar("processes_left", left, 0))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30, Path(sys.argv[2]) if len(sys.argv) > 2 else None)
