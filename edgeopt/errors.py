"""What goes wrong, said so that the reader knows what, where and what to do.

A `UserError` is somebody's mistake and never shows a traceback; it carries every problem that was found, not only the
first. Anything else that escapes is a bug in edgeopt or in a plugin.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import IntEnum


class ExitCode(IntEnum):
    """The exit status of every `edgeopt` command."""

    OK = 0
    BUG = 1
    USER_ERROR = 2
    GATE_MISSED = 3
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Location:
    """A place in a file that the user wrote; `line` counts from 1."""

    file: str
    line: int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, where it is, and what to do about it.

    Code that knows no recipe names the `option` that is to blame; whoever knows the recipe turns it into a `location`.
    """

    message: str
    hint: str | None = None
    location: Location | None = None
    option: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", printable(self.message))
        object.__setattr__(self, "hint", self.hint and printable(self.hint))

    def __str__(self) -> str:
        where = f"{self.location}: " if self.location else ""
        hint = f"\n  hint: {self.hint}" if self.hint else ""
        return f"{where}{self.message}{hint}"

    def at(self, locate: Callable[..., Location | None]) -> Problem:
        """This problem where `locate` says that its option stands, unless it already knows a better place.

        `locate` takes the names that lead to an option from its plugin's table, or none for the table itself.
        """
        return self if self.location else replace(self, location=locate(*self.option.split(".") if self.option else ()))


def printable(text: str) -> str:
    """The text as UTF-8 can hold it: names of files that are not UTF-8 come from the system with bytes in disguise,
    which neither a terminal nor a report takes, and are shown with escapes.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class EdgeoptError(Exception):
    """Base of everything that edgeopt raises on purpose."""

    exit_code = ExitCode.BUG


class UserError(EdgeoptError):
    """Mistakes in what the user gave: recipe, options, data, files; `problems` holds all of them."""

    exit_code = ExitCode.USER_ERROR

    def __init__(self, *problems: Problem | str, hint: str | None = None) -> None:
        self.problems: tuple[Problem, ...] = tuple(
            Problem(problem, hint) if isinstance(problem, str) else problem for problem in problems
        )
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def at(self, locate: Callable[..., Location | None]) -> UserError:
        """The same error with a location for the problems that have none; see `Problem.at`."""
        return type(self)(*(problem.at(locate) for problem in self.problems))


class RecipeError(UserError):
    """The recipe does not parse, does not fit its schema, or asks for an impossible order."""


class PluginError(UserError):
    """A plugin cannot be loaded, is declared wrongly, or shares its name with another."""


class MissingExtraError(UserError):
    """A plugin needs packages that are not installed."""


class DataError(UserError):
    """The data set is missing, empty, unreadable or cannot be split as asked."""


class DataChangedError(DataError):
    """The data set is no longer what it was when the run looked at it."""


class CheckpointError(UserError):
    """A checkpoint is unsafe, unreadable or does not fit the model."""


class TrainingError(UserError):
    """Training cannot go on, for instance because the loss is no longer finite."""


class NothingChangedError(UserError):
    """A step was asked to change the model and changed nothing (0 layers quantized, 0 nodes frozen)."""


class FunctionChangedError(UserError):
    """A step that must keep the function (capture, fold, convert) did not keep it."""


class ExportError(UserError):
    """A runtime cannot take the model; names the operator and the module it comes from."""


class StorageError(UserError):
    """Files cannot be written or read: no permission, no space, a damaged store."""


class ResourceError(UserError):
    """The machine has not what the work takes: memory, processes, open files."""


class DeviceError(UserError):
    """A device is away, refuses, or cannot do what it is asked for."""


class ConnectionLostError(DeviceError):
    """The connection to a device broke; what was done there stays done."""


class LockError(UserError):
    """`--locked` was asked for and something is not as the lock says."""


class GateError(EdgeoptError):
    """The run finished and a gate of the recipe was missed."""

    exit_code = ExitCode.GATE_MISSED

    def __init__(self, messages: Iterable[str]) -> None:
        self.messages = tuple(messages)
        super().__init__("\n".join(self.messages))


class PluginBugError(EdgeoptError):
    """A function of a plugin raised what is no error of the user's; the message names the plugin."""


class PausedError(EdgeoptError):
    """A training let others go first, as it was asked to: its checkpoint is written, and it goes on from there.

    `score` is the best one on validation images of the first `epochs`.
    """

    def __init__(self, epochs: int, score: float) -> None:
        super().__init__(f"paused after {epochs} epochs")
        self.epochs = epochs
        self.score = score


class WorkerError(EdgeoptError):
    """A worker process ended with a bug or a native crash; `log` says where its output is, `in_plugin` that the bug is
    a plugin's own.
    """

    def __init__(self, message: str, log: str | None = None, *, in_plugin: bool = False) -> None:
        self.log = log
        self.in_plugin = in_plugin
        super().__init__(message)


class SilenceError(WorkerError):
    """A worker gave no sign of life for as long as it may take, and was ended."""


def one_error(failures: Iterable[EdgeoptError]) -> EdgeoptError:
    """The failures of several files as one error; a bug weighs more than a mistake."""
    bugs = [failure for failure in failures if not isinstance(failure, UserError)]
    problems = [problem for failure in failures if isinstance(failure, UserError) for problem in failure.problems]
    return bugs[0] if bugs else UserError(*problems)


class WorkerDiedError(WorkerError):
    """A worker process ended by a signal, or without a word: another one may do what it was to do."""


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """A hint that names the closest of `known`, or all of them when there are few, or nothing."""
    choices = sorted(known)
    close = difflib.get_close_matches(name, choices, n=3, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(repr(choice) for choice in close) + "?"
    if 0 < len(choices) <= 12:
        return "known: " + ", ".join(choices)
    return None


def in_a_line(error: EdgeoptError) -> str:
    """All that an error says but its places, hints in brackets, for a table or a sentence."""
    if not isinstance(error, UserError):
        return str(error)
    said = (f"{each.message} ({each.hint})" if each.hint else each.message for each in error.problems)
    return "; ".join(said)


def first_line(error: BaseException) -> str:
    """The first line of an error's text that says anything; the name of its type where none does."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
