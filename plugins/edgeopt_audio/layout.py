"""The class, speaker and split of a wav file, read from its path. Light, so that `edgeopt check` finds mistakes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from edgeopt.data.walk import SPLIT_OF_WORD, FoundFile, counted_suffixes, files_below, without_broken
from edgeopt.files import where_looked
from edgeopt.plugins import DataError, DataSurvey, Problem, digest, printable

_FIELDS = ("class", "speaker", "split", "any")
_SHOWN = 3
_OTHER_SOUNDS = frozenset({".aac", ".aif", ".aiff", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wma"})


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
    size: int
    changed: int


@dataclass(frozen=True)
class Recordings:
    """The wav files of a folder, in order of their path, and what lies there and is not used."""

    files: tuple[Recording, ...]
    warnings: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """Names, sizes and modification times of the files; the same wherever the folder stands."""
        return digest([[each.name, each.size, each.changed] for each in self.files])

    def survey(self) -> DataSurvey:
        """How many recordings of each class each split has."""
        classes = sorted({each.label for each in self.files})
        counts = {
            split: dict.fromkeys(classes, 0)
            for split in ("train", "validation", "test")
            if any(each.split == split for each in self.files)
        }
        for each in self.files:
            counts[each.split][each.label] += 1
        return DataSurvey(counts, self.warnings)


def find_recordings(root: Path, layout: Layout, skip_broken: bool = False) -> Recordings:
    """The wav files below `root`, without hidden ones and folders whose name begins with "_"; links are followed.

    With `skip_broken`, links that lead nowhere are left to be counted when they are read.

    Raises `DataError` when there is no such folder or file, for files that do not fit the layout, and for links that
    lead nowhere.
    """
    try:
        found = files_below(root, _is_wav, leaves=lambda name: name.startswith("_"))
    except FileNotFoundError as error:
        missing = Path(error.filename or root)
        raise DataError(
            Problem(f"{missing} does not exist{where_looked(missing)}", "path takes a folder that holds wav files")
        ) from error
    except OSError as error:
        raise DataError(
            Problem(f"{error.filename or root} cannot be read: {error.strerror or error}", "check path and permissions")
        ) from error
    found, warnings = without_broken(found, root, _is_wav, skip=skip_broken)
    others = f"; it holds other files: {counted_suffixes(found.others)}" if found.others else ""
    if not found.taken:
        hint = f"path takes a folder with files such as {layout.text}"
        raise DataError(Problem(f"{root} holds no wav files{others}", hint))
    read = [(file, layout.read(file.name)) for file in found.taken]
    strangers = [file.name for file, what in read if what is None]
    if strangers:
        shown = ", ".join(str(root / name) for name in strangers[:_SHOWN])
        raise DataError(
            Problem(
                f"{len(strangers)} of {len(read)} wav files do not fit layout {layout.text!r}: {shown}",
                "change layout, or move them into a folder whose name begins with _",
                option="layout",
            )
        )
    sounds = tuple(name for name in found.others if Path(name).suffix.lower() in _OTHER_SOUNDS)
    if sounds:
        warnings.append(f"{len(sounds)} files of sound are no wav files and were left out: {counted_suffixes(sounds)}")
    files = tuple(_recording(root, file, what) for file, what in read if what is not None)
    return Recordings(files, tuple(map(printable, warnings)))


def _recording(root: Path, file: FoundFile, what: dict[str, str]) -> Recording:
    split = what.get("split", "train")
    path = root / file.name
    if split.lower() not in SPLIT_OF_WORD:
        raise DataError(
            Problem(f"{path} is of a split {split!r}", f"splits are named {', '.join(SPLIT_OF_WORD)}", option="layout")
        )
    label, speaker = printable(what["class"]), printable(what.get("speaker", ""))
    return Recording(path, file.name, label, speaker, SPLIT_OF_WORD[split.lower()], file.size, file.changed)


def _is_wav(name: str) -> bool:
    return name.lower().endswith(".wav")
