"""The class, speaker and split of a wav file, read from its path. Light, so that `edgeopt check` finds mistakes."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from edgeopt.plugins import DataError, Problem, digest

_FIELDS = ("class", "speaker", "split", "any")
_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
_SHOWN = 3


@dataclass(frozen=True)
class Layout:
    """A pattern of paths such as "{class}/{speaker}_{any}.wav".

    A field stands for one character or more, but no "/"; it takes as few as fit. Where {speaker} or {class} comes
    twice, both must be the same.

    Raises `ValueError` for a pattern that cannot be used.
    """

    text: str

    def __post_init__(self) -> None:
        unknown = [name for name in re.findall(r"\{(.*?)\}", self.text) if name not in _FIELDS]
        if unknown:
            known = ", ".join(f"{{{name}}}" for name in _FIELDS)
            raise ValueError(f"layout {self.text!r} has {{{unknown[0]}}}, and there are {known}")
        if re.search(r"[{}]", re.sub(r"\{.*?\}", "", self.text)):
            raise ValueError(f"layout {self.text!r} has a brace without its other half")
        if "class" not in self.names:
            raise ValueError(f"layout {self.text!r} does not say where a file names its class: put {{class}} into it")
        if not self.text.lower().endswith(".wav"):
            raise ValueError(f"layout {self.text!r} does not end in .wav")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The fields, in order."""
        return tuple(re.findall(r"\{(.*?)\}", self.text))

    def read(self, path: str) -> dict[str, str] | None:
        """What a path, with "/" between folders, says of its file; None where it does not fit."""
        found = self._pattern.fullmatch(path)
        return found.groupdict() if found else None

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        seen: set[str] = set()
        parts = []
        for part in re.split(r"(\{.*?\})", self.text):
            name = part[1:-1]
            if not part.startswith("{"):
                parts.append(re.escape(part))
            elif name == "any":
                parts.append("[^/]+?")
            elif name in seen:
                parts.append(f"(?P={name})")
            else:
                seen.add(name)
                parts.append(f"(?P<{name}>[^/]+?)")
        return re.compile("".join(parts), re.IGNORECASE)


@dataclass(frozen=True)
class Recording:
    """A wav file and what its path says; `speaker` is empty where it says none."""

    file: Path
    name: str
    label: str
    speaker: str
    split: str


def find_recordings(root: Path, layout: Layout) -> tuple[Recording, ...]:
    """The wav files below `root`, in order of their path, without hidden ones and folders whose name begins with "_".

    Raises `DataError` when there is no such folder or file, and for files that do not fit the layout.
    """
    try:
        names = _wav_files(root)
    except OSError as error:
        raise DataError(
            Problem(f"{error.filename or root} cannot be read: {error.strerror or error}", "check path and permissions")
        ) from error
    if not names:
        raise DataError(Problem(f"{root} holds no wav files", f"path takes a folder with files such as {layout.text}"))
    read = [(name, layout.read(name)) for name in names]
    strangers = [name for name, found in read if found is None]
    if strangers:
        shown = ", ".join(str(root / name) for name in strangers[:_SHOWN])
        raise DataError(
            Problem(
                f"{len(strangers)} of {len(names)} wav files do not fit layout {layout.text!r}: {shown}",
                "change layout, or move them into a folder whose name begins with _",
                option="layout",
            )
        )
    return tuple(_recording(root, name, found) for name, found in read if found is not None)


def fingerprint_of(recordings: tuple[Recording, ...]) -> str:
    """Names, sizes and modification times of the files; the same wherever the folder stands."""
    stats = ((each.name, each.file.stat()) for each in recordings)
    return digest([[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats])


def _recording(root: Path, name: str, found: dict[str, str]) -> Recording:
    split = found.get("split", "train")
    if split.lower() not in _SPLITS:
        raise DataError(
            Problem(f"{root / name} is of a split {split!r}", f"splits are named {', '.join(_SPLITS)}", option="layout")
        )
    return Recording(root / name, name, found["class"], found.get("speaker", ""), _SPLITS[split.lower()])


def _wav_files(root: Path) -> list[str]:
    """Paths below `root`, with "/" between folders, sorted."""
    names: list[str] = []
    for place, folders, files in os.walk(root, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        below = Path(place).relative_to(root)
        wavs = [name for name in files if name.lower().endswith(".wav") and not name.startswith(".")]
        names += [(below / name).as_posix() for name in wavs]
    return sorted(names)


def _raise(error: OSError) -> None:
    raise error  # os.walk would leave out a folder that it may not read
