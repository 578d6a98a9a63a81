"""Where a conversion works, and how what it made comes to the place that the user named.

Files are made in a folder of this conversion alone, under the name that they will have, because a file may name the
ones beside it. They are put into place when all is known to be right, and replace nothing unless that was asked for.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from edgeopt.errors import StorageError, UserError, WorkerError
from edgeopt.files import place, storage_errors

_HEADING = "---"


@dataclass(frozen=True)
class Bench:
    """The folders of one conversion: `made` is where the new file is written, `log` what the libraries printed."""

    root: Path

    @property
    def made(self) -> Path:
        """The folder that holds the new file, and those beside it, and nothing else."""
        return self.root / "made"

    @property
    def log(self) -> Path:
        """What the libraries printed."""
        return self.root / "log.txt"

    @property
    def jobs(self) -> Path:
        """What the workers are told to do."""
        return self.root / "jobs"


@contextmanager
def bench() -> Iterator[Bench]:
    """A folder for one conversion, gone afterwards; what the libraries printed stays where the conversion failed.

    An error of the user's then names that file, if there is anything in it.
    """
    folder = Bench(Path(tempfile.mkdtemp(prefix="edgeopt-convert-")))
    folder.made.mkdir()
    try:
        yield folder
    except UserError as error:
        if not _says_anything(folder.log):
            shutil.rmtree(folder.root, ignore_errors=True)
            raise
        _keep_log_alone(folder)
        raise _naming(error, folder.log) from error.__cause__
    except WorkerError:  # names its log itself
        _keep_log_alone(folder)
        raise
    except BaseException:
        shutil.rmtree(folder.root, ignore_errors=True)
        raise
    shutil.rmtree(folder.root, ignore_errors=True)


def require_free(files: Sequence[Path], *, force: bool) -> None:
    """Raises `StorageError` naming what would be replaced; `force` allows that."""
    there = [file for file in files if file.exists() or file.is_symlink()]
    if there and not force:
        raise StorageError(
            f"{', '.join(map(str, there))} {'is' if len(there) == 1 else 'are'} there already",
            hint="give another name with --out, or replace it with --force",
        )


def deliver(made: Path, companions: Sequence[str], target: Path, *, unpacked: bool, force: bool) -> tuple[Path, ...]:
    """Puts a file, or the folder that it is a zip of, and its companions beside `target`; returns the companions.

    Raises `StorageError` for a place that is taken, before anything is written.
    """
    beside = tuple(target.with_name(name) for name in companions)
    require_free((target, *beside), force=force)
    for name, companion in zip(companions, beside, strict=True):
        place(made.with_name(name), companion)
    if unpacked:
        _unpack(made, target)
    else:
        place(made, target)
    return beside


def bytes_of(path: Path) -> int:
    """The size of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _unpack(archive: Path, target: Path) -> None:
    """Puts a zipped folder into place: written aside, then renamed."""
    with storage_errors(target), tempfile.TemporaryDirectory(dir=target.absolute().parent) as aside:
        unpacked = Path(aside) / "folder"
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(unpacked)
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
        unpacked.rename(target)


def _keep_log_alone(folder: Bench) -> None:
    for each in folder.root.iterdir():
        if each.is_dir():
            shutil.rmtree(each, ignore_errors=True)
        elif each != folder.log:
            each.unlink(missing_ok=True)


def _says_anything(log: Path) -> bool:
    """Whether a log holds more than the headings of its workers."""
    if not log.is_file():
        return False
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return any(line.strip() and not line.startswith(_HEADING) for line in lines)


def _naming(error: UserError, log: Path) -> UserError:
    """The error, whose last hint says where the rest of the story is."""
    *others, last = error.problems
    said = f"{last.hint}; " if last.hint else ""
    return type(error)(*others, replace(last, hint=f"{said}what the libraries printed is in {log}"))
