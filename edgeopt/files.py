"""Files that are written whole or not at all, files of others, and what a disk's errors mean to the user."""

from __future__ import annotations

import errno
import lzma
import os
import shutil
import tempfile
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeopt.arrays import Json
from edgeopt.errors import PluginBugError, ResourceError, StorageError, UserError

_OTHER_FOLDER = "choose another folder with --out"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FAILING = frozenset({errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENXIO, errno.EHOSTDOWN})
_TOO_MANY = frozenset({errno.EMFILE, errno.ENFILE})
_OF_THE_MACHINE = frozenset({*_FULL, *_FAILING, *_TOO_MANY, errno.EROFS, errno.ENOMEM})
_ALMOST_FULL_BYTES = 1 << 20
_PIECE_BYTES = 1 << 20

ARCHIVE_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, KeyError, ValueError, RuntimeError)
"""What `zipfile`, and NumPy with it, raise besides `OSError` for an archive that is damaged, that lacks what is asked
for, or that is packed as Python does not know or behind a password."""


_MOST_TIMES = 20  # that an archive of text and weights shrinks by packing
_SMALL_BYTES = 64 << 20


def require_no_bomb(archive: zipfile.ZipFile, path: Path) -> None:
    """Raises `ValueError` for an archive at `path` whose members say that they are far larger than it is: whoever
    unpacked them would need the memory. Python reads no more of a member than it says.
    """
    said_bytes = sum(member.file_size for member in archive.infolist())
    if said_bytes > max(_SMALL_BYTES, _MOST_TIMES * path.stat().st_size):
        raise ValueError(f"it says that {said_bytes:,} bytes are packed in it, which cannot be")


def where_looked(path: Path) -> str:
    """The rest of a sentence that says of a path that it is not there: where that was, which a relative one hides."""
    if path.is_absolute():
        return ""
    return f"; looked in {Path.cwd()}, because paths count from the folder where edgeopt is started"


def is_there(path: Path) -> bool:
    """Whether there is a file or folder at a path that others named: a name that the system does not take is none."""
    return os.path.exists(path)  # noqa: PTH110  # Path.exists raises for a name that is too long


def is_file(path: Path) -> bool:
    """The same for a file alone."""
    return os.path.isfile(path)  # noqa: PTH113  # as above


def parsed_json(text: str | bytes) -> Json:
    """The values of a JSON text that others may have written. Raises `ValueError` for any other text."""
    import json  # only where something is read

    try:
        values: Json = json.loads(text)
    except RecursionError as error:  # the parser calls itself for each list in a list
        raise ValueError("its lists are nested too deep") from error
    return values


def storage_error(error: OSError, path: object) -> UserError | None:
    """What the system's error at `path`, unless it names another file, means to the user; None where it may be any."""
    where = error.filename or path
    match error.errno:
        case number if number in _FULL:
            return _full(error.filename or _fullest(Path(str(path))))
        case number if number in _FAILING:
            hint = f"look whether its disk is still there, or {_OTHER_FOLDER}"
            return StorageError(f"{where} cannot be reached: {error.strerror}", hint=hint)
        case number if number in _TOO_MANY:
            hint = "raise the limit, with `ulimit -n`, or end what else has files open"
            return ResourceError(f"too many files are open: {where}", hint=hint)
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return StorageError(f"no permission to write {where}", hint=_OTHER_FOLDER)
        case errno.ENOENT:
            return StorageError(f"{where} is not there, or cannot be made there", hint=_OTHER_FOLDER)
        case errno.ENOTDIR | errno.EEXIST:
            return StorageError(f"{where} is a file, not a folder", hint=_OTHER_FOLDER)
        case _:
            return None


def is_of_machine(error: OSError) -> bool:
    """Whether it is the machine's fault, whatever file it met."""
    return error.errno in _OF_THE_MACHINE


@contextmanager
def storage_errors(path: Path, *, inside: Path | None = None) -> Iterator[None]:
    """Turns the system's errors of writing into `StorageError`s that say what to do.

    With `inside`, only those of files below that folder, and those of the machine, such as a full disk: all others are
    left as they are.
    """
    try:
        yield
    except OSError as error:
        if inside is not None and not is_of_machine(error) and not _is_below(error.filename, inside):
            raise
        told = storage_error(error, path)
        if told is None:
            raise
        raise told from error
    except (RuntimeError, PluginBugError) as error:  # torch's writers do not say why they failed, in a plugin too
        told = full_or_gone(path)
        if told is None:
            raise
        raise told from error


def full_or_gone(path: Path) -> StorageError | None:
    """Why nothing can be written below a folder, where a writer does not say it; None where something can."""
    if _is_full(path):
        return _full(path)
    if not path.exists():
        return StorageError(f"{path} is not there any more", hint=f"look whether its disk is, or {_OTHER_FOLDER}")
    return None


def _is_below(file: object, folder: Path) -> bool:
    return isinstance(file, str) and Path(file).absolute().is_relative_to(folder.absolute())


def _full(where: object) -> StorageError:
    other = "name another folder in TMPDIR" if str(where) == tempfile.gettempdir() else "choose another disk with --out"
    return StorageError(f"the disk is full: {where}", hint=f"free some space, or {other}")


def _fullest(path: Path) -> Path:
    """The folder whose disk is full, where an error names no file: that of temporary files may be meant."""
    temporary = Path(tempfile.gettempdir())
    return temporary if _is_full(temporary) and not _is_full(path) else path


def _is_full(path: Path) -> bool:
    existing = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    try:
        has_files = not hasattr(os, "statvfs") or os.statvfs(existing).f_favail != 0 or not os.statvfs(existing).f_files
        return shutil.disk_usage(existing).free < _ALMOST_FULL_BYTES or not has_files
    except OSError:
        return False


def user_cache() -> Path:
    """The folder in which edgeopt keeps, for this user, what can be made or fetched again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeopt"


def write_aside(path: Path, data: str | bytes) -> None:
    """Writes a file so that a reader never sees half of it."""
    if path.is_dir():
        raise StorageError(f"{path} is a folder, not a file", hint="give the name of a file")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        pending = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            if isinstance(data, bytes):
                pending.write_bytes(data)
            else:
                pending.write_text(data, encoding="utf-8")
            pending.replace(path)
        finally:
            pending.unlink(missing_ok=True)


def place(source: Path, target: Path) -> None:
    """Copies a file of the store into a run's folder, unless it is there already, with the same bytes.

    A copy, not a link: whoever edits a file of the run must not change the store. It has the mode of a new file, also
    where a library made the first one for its owner alone.
    """
    with storage_errors(target):
        old, new = target.stat() if target.exists() else None, source.stat()
        looks_alike = old and (old.st_size, old.st_mtime_ns) == (new.st_size, new.st_mtime_ns)
        if looks_alike and _same_bytes(source, target):  # a disk may have lost a bit of either
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        pending = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
        try:
            shutil.copyfile(source, pending)
            os.utime(pending, ns=(new.st_atime_ns, new.st_mtime_ns))
            pending.replace(target)
        finally:
            pending.unlink(missing_ok=True)


def _same_bytes(some: Path, other: Path) -> bool:
    """Whether two files of one size hold the same."""
    with some.open("rb") as left, other.open("rb") as right:
        while piece := left.read(_PIECE_BYTES):
            if piece != right.read(_PIECE_BYTES):
                return False
    return True
