"""Faults of disks: full at every write, without room for another file, read-only, and gone in the middle."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fault_bench import Bench, Ending, Fault, How, Work

_RELEASED_S = 30.0
_PAGE_BYTES = 4096  # the least by which such a disk grows
_PAGES, _PAGES_TUNE, _FILES = (2, 12), (8, 32), (2, 10)  # that there are more from try to try


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


def _growing(bench: Bench, work: Work, what: str, unit: int, steps: tuple[int, int]) -> Iterator[Ending]:
    """A command again and again on a disk that has a little more room each time, until it comes to its end."""
    room = 2 * unit
    with _small_disk(bench.new_out(), f"{what}={room}") as out:
        while True:
            started = bench.start(work, out)
            ending = bench.judged(work, out, started, started.wait())
            yield ending
            if ending.how is How.RIGHT:
                break
            room += unit * bench.random.randint(*steps)
            _mount("-o", f"remount,{what}={room}", str(out))


def full_disk(bench: Bench) -> Iterator[Ending]:
    yield from _growing(bench, bench.run, "size", _PAGE_BYTES, _PAGES)


def full_disk_tune(bench: Bench) -> Iterator[Ending]:
    yield from _growing(bench, bench.tune, "size", _PAGE_BYTES, _PAGES_TUNE)


def no_more_files(bench: Bench) -> Iterator[Ending]:
    yield from _growing(bench, bench.run, "nr_inodes", 1, _FILES)


def _make_read_only(disk: Path) -> None:
    """As soon as the processes that were killed have let go of their files."""
    end = time.monotonic() + _RELEASED_S
    while subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=False, stderr=subprocess.DEVNULL).returncode:
        if time.monotonic() > end:
            raise TimeoutError(f"{disk} is busy")
        time.sleep(0.1)


def read_only(bench: Bench) -> Iterator[Ending]:
    """An empty disk, one with half of a run, and one with all of it."""
    for work, shares in ((bench.run, (0.0, 0.6, None)), (bench.tune, (0.6,))):
        for share in shares:
            with _small_disk(bench.new_out(), "size=64m") as out:
                if share != 0.0:
                    begun = bench.start(work, out)
                    begun.wait(share * bench.seconds(work) if share else 900.0)
                    begun.kill_all()
                _make_read_only(out)
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
        "`run` on a disk that grows by 8 to 48 kB from try to try, so that write after write fails",
        full_disk,
        needs_root=True,
    ),
    Fault(
        "full disk, tune",
        "`tune` on a disk that grows by 32 to 128 kB from try to try",
        full_disk_tune,
        needs_root=True,
    ),
    Fault(
        "no more files",
        "`run` on a disk that takes two to ten files more from try to try",
        no_more_files,
        needs_root=True,
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
