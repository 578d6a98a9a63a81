"""`run.json`: what a run's folder refers to in the store, and which of the files in it the run wrote.

By the first, `edgeopt clean` knows what is in use; by the second, a later run knows what it may take out of the folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgeopt.errors import UserError
from edgeopt.files import parsed_json, write_aside
from edgeopt.json_values import from_text, to_text

FILE = "run.json"


@dataclass(frozen=True)
class Written:
    """How a file looked when it was written: by that, one that somebody changed since is told from it."""

    size_bytes: int
    modified_ns: int

    @classmethod
    def of(cls, file: Path) -> Written:
        """How the file looks now."""
        found = file.stat()
        return cls(found.st_size, found.st_mtime_ns)


@dataclass(frozen=True)
class RunRecord:
    """`stages` are the keys of the run's results by stage, `files` what it wrote, by the path below its folder.

    Until a run has ended, its folder is still that of the one before, whose keys are `earlier`.
    """

    stages: Mapping[str, str]
    files: Mapping[str, Written] = field(default_factory=dict)
    earlier: tuple[str, ...] = ()
    schema: int = 1

    def write(self, folder: Path) -> None:
        """Writes the record into a run's folder."""
        write_aside(folder / FILE, to_text(self))


def read_record(folder: Path) -> RunRecord | None:
    """The record in a run's folder; None where there is none that can be read."""
    try:
        return from_text(RunRecord, (folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, UserError):
        return None


def references(out: Path) -> dict[str, list[str]]:
    """The folders of runs and scans below a folder of results, by the key of each result that they refer to.

    The report names one besides: the float model, from which another run may start.
    """
    found: dict[str, list[str]] = {}
    runs = [folder for folder in _folders(out) if folder.name != ".store"]
    scans = [folder for run in runs for folder in _folders(run)]
    for folder in sorted([*runs, *scans]):
        record = read_record(folder)
        recorded = (*record.stages.values(), *record.earlier) if record else ()
        keys = {*recorded, _float_model(folder)} - {""}
        for key in keys:
            found.setdefault(key, []).append(folder.relative_to(out).as_posix())
    return found


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder; none where it has gone, as those of a study at work do."""
    try:
        return [each for each in folder.iterdir() if each.is_dir()]
    except FileNotFoundError:
        return []


def _float_model(folder: Path) -> str:
    try:
        report = parsed_json((folder / "report.json").read_text(encoding="utf-8"))
        return str(report.get("float_model", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def take_out(folder: Path, earlier: RunRecord | None, kept: Iterable[str]) -> tuple[list[str], list[str]]:
    """Removes from a run's folder the files that an earlier run wrote and this one, which wrote `kept`, did not.

    Returns the paths of those removed, and of those left there because somebody changed them.
    """
    removed, changed = [], []
    written = set(kept)
    for name, looked in (earlier.files if earlier else {}).items():
        file = folder / name
        if name in written or not _is_inside(file, folder) or not file.is_file():
            continue
        if Written.of(file) != looked:
            changed.append(name)
            continue
        file.unlink()
        removed.append(name)
        for parent in file.relative_to(folder).parents[:-1]:
            if any((folder / parent).iterdir()):
                break
            (folder / parent).rmdir()
    return removed, changed


def _is_inside(file: Path, folder: Path) -> bool:
    """Whether a path stays below a folder, links followed: a record is a file that anybody may write."""
    return file.resolve().is_relative_to(folder.resolve()) and not file.is_symlink()
