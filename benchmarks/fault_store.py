"""Faults of the store: damaged and swapped results, and several commands on one store at once."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from fault_bench import Bench, Ending, Fault, Started

from edgeopt.workers.layout import RECORD, Record


def _results(out: Path) -> list[Path]:
    """The folders of results, in the order in which they were made."""
    folders = (file.parent for file in (out / ".store").glob(f"??/*/{RECORD}"))
    return sorted(folders, key=lambda folder: _record(folder).finished)


def _record(folder: Path) -> Record:
    record = Record.of(folder)
    assert record is not None, folder
    return record


def _copy(bench: Bench, without_after: str | None = None) -> Path:
    """A store with all that a run left, or without what was made after the result with a label, and whatever was made of
    it, so that the result is needed.
    """
    out = bench.new_out()
    shutil.copytree(bench.finished(bench.run), out)
    if without_after is not None:
        results = _results(out)
        place = next(number for number, each in enumerate(results) if _record(each).label == without_after)
        for folder in results[place + 1 :]:
            shutil.rmtree(folder)
        shutil.rmtree(out / "faults")
    return out


def _again(bench: Bench, out: Path) -> Iterator[Ending]:
    started = bench.start(bench.run, out)
    code = started.wait()
    yield bench.judged(bench.run, out, started, code, goes_on=True)
    shutil.rmtree(out)


def _keeping_time(file: Path, content: bytes) -> None:
    """Writes a file so that it looks as old as before: what a disk loses by itself changes no time."""
    before = file.stat()
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def _flipped(bench: Bench, content: bytes) -> bytes:
    place = bench.random.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << bench.random.randrange(8)]) + content[place + 1 :]


def corrupted(bench: Bench) -> Iterator[Ending]:
    """A bit of each record, and of one file of each result."""
    for label, names in _files(bench).items():
        for name in (RECORD, *bench.random.sample(names, min(1, len(names)))):
            out = _copy(bench, label)
            file = _results(out)[-1] / name
            _keeping_time(file, _flipped(bench, file.read_bytes()))
            yield from _again(bench, out)


def truncated(bench: Bench) -> Iterator[Ending]:
    """The end of one file of each kind."""
    kinds = {Path(name).suffix: (label, name) for label, names in _files(bench).items() for name in names}
    for label, name in kinds.values():
        out = _copy(bench, label)
        file = _results(out)[-1] / name
        _keeping_time(file, file.read_bytes()[: file.stat().st_size // 2])
        yield from _again(bench, out)


def swapped(bench: Bench) -> Iterator[Ending]:
    """Files of one name of two results, their records, and the whole results."""
    for name in ("module.pt", "program.pt2", RECORD, ""):
        out = _copy(bench, "round-weights" if name != "program.pt2" else "program: optimized")
        some, other = [folder / name for folder in _results(out) if (folder / name).exists()][-2:]
        aside = out / "aside"
        for source, target in ((some, aside), (other, some), (aside, other)):
            source.rename(target)
        yield from _again(bench, out)


def _files(bench: Bench) -> dict[str, list[str]]:
    """The label of each result, and its files."""
    records = map(_record, _results(bench.finished(bench.run)))
    return {record.label: sorted(record.files) for record in records}


def delivered(bench: Bench) -> Iterator[Ending]:
    """A bit of a file in the run's own folder."""
    for name in (
        "faults/npz/optimized/model.npz",
        "faults/npz/optimized/card.json",
        "faults/run.json",
        "faults/answers.npz",
    ):
        out = _copy(bench)
        file = out / name
        _keeping_time(file, _flipped(bench, file.read_bytes()))
        yield from _again(bench, out)


def at_once(bench: Bench) -> Iterator[Ending]:
    """Two runs and a study on one store, and cleanings all the while."""
    clean = [sys.executable, "-m", "edgeopt", "clean", "--yes"]
    for _ in range(2):
        out = bench.new_out()
        works = (bench.run, bench.run, bench.tune)
        started = [bench.start(work, out) for work in works]
        cleanings: list[tuple[Started, int | None]] = []
        while any(each.wait(0.0) is None for each in started):
            everything = ["--all"] if len(cleanings) % 2 else []
            cleaning = bench.start([*clean, *everything, "--out", str(out)])
            cleanings.append((cleaning, cleaning.wait()))
        for work, each in zip(works, started, strict=True):
            yield bench.judged(work, out, each, each.wait(), goes_on=True)
        for cleaning, code in cleanings:
            if code != 0:
                yield bench.judged(bench.run, out, cleaning, code)


FAULTS = (
    Fault(
        "corrupted",
        "a bit flipped in the record and in a file of each result in the store, when what was made of it is gone",
        corrupted,
    ),
    Fault("truncated", "half of a file of each kind in the store is missing", truncated),
    Fault("swapped", "files, records and results of the store have changed places", swapped),
    Fault("damaged folder", "a bit flipped in the files of the run's own folder", delivered),
    Fault("at once", "two runs and a study on one store, with `clean` and `clean --all` all the while", at_once),
)
