"""The files below a folder in one look at it: links are followed, and what leads nowhere is named. Light."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from edgeopt.data.collector import collector_paused
from edgeopt.errors import DataChangedError, DataError, Problem

#: What folders and files call the splits that are train, validation and test here.
SPLIT_OF_WORD = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
_SHOWN = 5  # broken links that are named
_LITTER = frozenset({"desktop.ini", "thumbs.db"})  # what systems leave in folders of images


class FoundFile(NamedTuple):
    """A file below a folder: its path with "/" between folders, its size in bytes and when it was changed, in ns.

    A tuple, because there are many of them: they are made and handed to other processes in half the time.
    """

    name: str
    size: int
    changed: int


@dataclass(frozen=True)
class FoundFiles:
    """What `files_below` found, each sorted by the parts of its path.

    `taken` are the files asked for, `others` the names of all other files, `folders` those of all folders that were
    looked into, and `broken` says of each link that leads nowhere, or back to a folder that it lies in, what is wrong
    with it.
    """

    taken: tuple[FoundFile, ...]
    others: tuple[str, ...]
    folders: tuple[str, ...]
    broken: tuple[tuple[str, str], ...]


def files_below(root: Path, takes: Callable[[str], bool], *, leaves: Callable[[str], bool] | None = None) -> FoundFiles:
    """All files below `root` at any depth, hidden ones left out; `takes` chooses by name, `leaves` folders to pass by.

    Links to files and folders are followed; one that leads to a folder above itself is not, and is `broken`. Dangling
    links are `broken`, whatever they are called.

    Raises `OSError` for a folder that cannot be read.
    """
    walk = _Walk(takes, leaves or (lambda _: False), [], [], [], [])
    here = root.stat()
    with collector_paused():
        walk.into(str(root), "", ((here.st_dev, here.st_ino),))
    return FoundFiles(tuple(walk.taken), tuple(walk.others), tuple(walk.folders), tuple(sorted(walk.broken)))


def without_broken(
    found: FoundFiles, root: Path, takes: Callable[[str], bool], *, skip: bool
) -> tuple[FoundFiles, list[str]]:
    """What was found, with links that lead nowhere among the files taken where they are to be skipped, so that reading
    them counts them; and what to say of links that could have been folders.

    Raises `DataError` that names such links where they are not to be skipped.
    """
    # what is called neither as a file to take nor as a folder could not be used with its target either
    broken = [each for each in found.broken if takes(each[0]) or not PurePosixPath(each[0]).suffix]
    if broken and not skip:
        hint = 'remove the link, or put its target back; on_error = "skip" goes on without it'
        problems = [Problem(f"{root / name} {what}", hint) for name, what in broken[:_SHOWN]]
        if len(broken) > _SHOWN:
            problems.append(Problem(f"{len(broken) - _SHOWN} more links below {root} lead nowhere", hint))
        raise DataError(*problems)
    taken = found.taken
    if files := [FoundFile(name, 0, 0) for name, _ in broken if takes(name)]:
        taken = tuple(sorted((*taken, *files), key=lambda file: file.name.split("/")))
    said = [f"{root / name} {what}, and was left out" for name, what in broken if not takes(name)]
    return FoundFiles(taken, found.others, found.folders, ()), said


def require_unchanged(file: Path, size: int, changed: int) -> None:
    """Raises `DataChangedError` for a file that is not of the `size`, in bytes, and the time, in ns, that were found;
    one that has gone is told by whoever opens it.
    """
    try:
        now = file.stat()
    except OSError:
        return
    if (now.st_size, now.st_mtime_ns) != (size, changed):
        raise DataChangedError(f"{file} changed while the run was working", hint="start the run again")


@dataclass(frozen=True)
class _Walk:
    takes: Callable[[str], bool]
    leaves: Callable[[str], bool]
    taken: list[FoundFile]
    others: list[str]
    folders: list[str]
    broken: list[tuple[str, str]]

    def into(self, folder: str, below: str, above: tuple[tuple[int, int], ...]) -> None:
        for entry in _entries(folder):
            name = f"{below}{entry.name}"
            try:
                found = entry.stat()
            except OSError as error:
                self.broken.append((name, _what_is_wrong(entry, error)))
                continue
            if stat.S_ISDIR(found.st_mode):
                identity = (found.st_dev, found.st_ino)
                if identity in above:
                    self.broken.append((name, "is a link back to a folder that it lies in"))
                elif not self.leaves(entry.name):
                    self.folders.append(name)
                    self.into(entry.path, f"{name}/", (*above, identity))
            elif self.takes(entry.name):
                self.taken.append(FoundFile(name, found.st_size, found.st_mtime_ns))
            elif entry.name.lower() not in _LITTER:
                self.others.append(name)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)


def _what_is_wrong(entry: os.DirEntry[str], error: OSError) -> str:
    if not entry.is_symlink():
        raise error
    target = Path(entry.path).readlink()
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"is a link to {target}, which is not there"
    return f"is a link to {target}, which cannot be followed: {error.strerror or error}"


def counted_suffixes(names: tuple[str, ...]) -> str:
    """How many of these names end in what, the most frequent first: "30 .heic, 1 without a suffix"."""
    counts: dict[str, int] = {}
    for name in names:
        suffix = PurePosixPath(name).suffix.lower() or "without a suffix"
        counts[suffix] = counts.get(suffix, 0) + 1
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{count} {suffix}" for suffix, count in ranked[:6]]
    rest = sum(count for _, count in ranked[6:])
    return ", ".join(shown) + (f", {rest} others" if rest else "")
