"""Faults of the machine, such as a full disk or memory that has run out, told as what they are: nobody's bug."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgeopt.errors import ResourceError, StorageError, UserError, first_line

_FREE_SPACE = "free some space, or choose another disk with --out"
_OTHER_FOLDER = "choose another folder with --out"
_LESS_MEMORY = "end what else needs memory, or ask for less: smaller batches, fewer workers, a smaller model"

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FAILING = frozenset({errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENXIO, errno.EHOSTDOWN})
_TOO_MANY = frozenset({errno.EMFILE, errno.ENFILE})
_OF_THE_MACHINE = frozenset({*_FULL, *_FAILING, *_TOO_MANY, errno.EROFS, errno.ENOMEM})
_ALMOST_FULL_BYTES = 1 << 20
_NO_MEMORY = (
    "allocate memory",
    "out of memory",
    "bad_alloc",
    "failed to map segment",
    "start new thread",
    "MemoryError",
)
"""Words of libraries, which raise any kind of error where there is no memory, or end the process."""


def storage_error(error: OSError, path: object) -> UserError | None:
    """What the system's error at `path`, unless it names another file, means to the user; None where it may be any."""
    where = error.filename or path
    match error.errno:
        case number if number in _FULL:
            return StorageError(f"the disk is full: {error.filename or _fullest(Path(str(path)))}", hint=_FREE_SPACE)
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


def machine_fault(error: BaseException) -> UserError | None:
    """What `error`, or one that it comes from, says of the user's machine; None where it may be a bug."""
    for each in _causes(error):
        if isinstance(each, UserError):
            return each if isinstance(each, StorageError | ResourceError) else None
        if is_no_memory(each):
            return ResourceError(f"the memory has run out: {first_line(each)}", hint=_LESS_MEMORY)
        if isinstance(each, OSError) and is_of_machine(each):
            return storage_error(each, tempfile.gettempdir())
    return None


def is_no_memory(error: BaseException) -> bool:
    """Whether an error says that memory, or the room for another thread, has run out."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return isinstance(error, RuntimeError | ImportError | OSError) and speaks_of_memory(str(error))


def speaks_of_memory(said: str) -> bool:
    """Whether a library's last words say that memory has run out."""
    return any(words in said for words in _NO_MEMORY)


def killed(label: str, log: object) -> ResourceError:
    """What a process met that the system, or a person, ended at once."""
    hint = f"systems do that where memory runs out: {_LESS_MEMORY}; what it said is in {log}"
    return ResourceError(f"{label}: the process was ended by SIGKILL, and not by edgeopt", hint=hint)


def without_memory(label: str, log: object) -> ResourceError:
    """What a process met that ended where it found no memory."""
    return ResourceError(f"{label}: the memory has run out", hint=f"{_LESS_MEMORY}; what it said is in {log}")


def full_or_gone(path: Path) -> StorageError | None:
    """Why nothing can be written below a folder, where a writer does not say it; None where something can."""
    if _is_full(path):
        return StorageError(f"the disk is full: {path}", hint=_FREE_SPACE)
    if not path.exists():
        return StorageError(f"{path} is not there any more", hint=f"look whether its disk is, or {_OTHER_FOLDER}")
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it comes from, each once."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        yield each
        seen.add(id(each))
        each = each.__cause__ or each.__context__


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
