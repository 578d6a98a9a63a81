"""Faults of the machine, such as memory that has run out or a full disk, told as what they are: nobody's bug."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator

from edgeopt.errors import EdgeoptError, PluginBugError, ResourceError, StorageError, UserError, first_line
from edgeopt.files import is_of_machine, storage_error

_LESS_MEMORY = "end what else needs memory, or ask for less: smaller batches, fewer workers, a smaller model"
_NO_MEMORY = (
    "allocate memory",
    "memory allocation",
    "out of memory",
    "bad_alloc",
    "map segment",
    "memoryerror",
    "start new thread",
    "pthread_create failed",
)
"""Words of libraries, which raise any kind of error where there is no memory, or end the process."""


def machine_fault(error: BaseException) -> UserError | None:
    """What `error`, or one that it comes from, says of the user's machine; None where it may be a bug."""
    for each in _causes(error):
        if isinstance(each, StorageError | ResourceError):
            return each
        if isinstance(each, EdgeoptError) and not isinstance(each, PluginBugError):
            return None  # it is told on purpose, whatever it comes from
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
    return any(words in said.lower() for words in _NO_MEMORY)


def killed(label: str, log: object) -> ResourceError:
    """What a process met that the system, or a person, ended at once."""
    hint = f"systems do that where memory runs out: {_LESS_MEMORY}; what it said is in {log}"
    return ResourceError(f"{label}: the process was ended by SIGKILL, and not by edgeopt", hint=hint)


def without_memory(label: str, log: object) -> ResourceError:
    """What a process met that ended where it found no memory."""
    return ResourceError(f"{label}: the memory has run out", hint=f"{_LESS_MEMORY}; what it said is in {log}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it comes from, each once."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        yield each
        seen.add(id(each))
        each = each.__cause__ or each.__context__
