"""Faults of disks: full at every write, without room for another file, read-only, and gone in the middle."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fault_bench import Bench, Ending, Fault, How, Work

_STEP_BYTES = 8192  # two pages: a page is the least by which such a disk grows
_FIRST_INODES, _STEP_INODES = 4, 3


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


@contextmanager
def _small_disk(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    _mount("-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


def _growing(bench: Bench, work: Work, what: str, first: int, step: int) -> Iterator[Ending]:
    """A command again and again on a disk that has a little more room each time, until it comes to its end."""
    with _small_disk(bench.new_out(), f"{what}={first}") as out:
        room = first
        while True:
            started = bench.start(work, out)
            ending = bench.judged(work, out, started, started.wait())
            yield ending
            if ending.how is How.RIGHT:
                break
            room += step
            _mount("-o", f"remount,{what}={room}", str(out))


def full_disk(bench: Bench) -> Iterator[Ending]:
    yield from _growing(bench, bench.run, "size", _STEP_BYTES, _STEP_BYTES)


def full_disk_tune(bench: Bench) -> Iterator[Ending]:
    yield from _growing(bench, bench.tune, "size", 8 * _STEP_BYTES, 8 * _STEP_BYTES)


def no_more_files(bench: Bench) -> Iterator[Ending]:
    yield from _growing(bench, bench.run, "nr_inodes", _FIRST_INODES, _STEP_INODES)


def read_only(bench: Bench) -> Iterator[Ending]:
    """An empty disk, one with half of a run, and one with all of it."""
    for work, shares in ((bench.run, (0.0, 0.6, None)), (bench.tune, (0.6,))):
        for share in shares:
            with _small_disk(bench.new_out(), "size=64m") as out:
                if share != 0.0:
                    begun = bench.start(work, out)
                    begun.wait(share * bench.seconds(work) if share else 900.0)
                    begun.kill_all()
                _mount("-o", "remount,ro", str(out))
                started = bench.start(work, out)
                code = started.wait()
                _mount("-o", "remount,rw", str(out))
                yield bench.judged(work, out, started, code, goes_on=True)


def vanishing(bench: Bench) -> Iterator[Ending]:
    """A folder that is no longer mounted, from a random instant on."""
    for work in (*[bench.run] * 5, bench.tune):
        real, out = bench.new_out(), bench.new_out()
        real.mkdir()
        out.mkdir()
        _mount("--bind", str(real), str(out))
        started = bench.start(work, out)
        started.wait(bench.random.uniform(0.1, 0.9) * bench.seconds(work))
        subprocess.run(["umount", "-l", str(out)], check=True)
        code = started.wait()
        shutil.rmtree(out)
        out.mkdir()
        _mount("--bind", str(real), str(out))
        try:
            yield bench.judged(work, out, started, code, goes_on=True)
        finally:
            subprocess.run(["umount", "-l", str(out)], check=True)
            with contextlib.suppress(OSError):
                shutil.rmtree(out)


FAULTS = (
    Fault(
        "full disk",
        "`run` on a disk that grows by 8 kB from try to try, so that each write in turn fails",
        full_disk,
        needs_root=True,
    ),
    Fault("full disk, tune", "`tune` on a disk that grows by 64 kB from try to try", full_disk_tune, needs_root=True),
    Fault(
        "no more files", "`run` on a disk that takes three files more from try to try", no_more_files, needs_root=True
    ),
    Fault(
        "read-only",
        "`run` on a read-only disk that is empty, holds half of the work, or all of it; `tune` with half of it",
        read_only,
        needs_root=True,
    ),
    Fault(
        "vanishing mount", "`run` and `tune` whose disk is unmounted at a random instant", vanishing, needs_root=True
    ),
)
