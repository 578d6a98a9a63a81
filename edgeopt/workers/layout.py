"""How a store lies on disk: which folder holds what, and what a finished result says of itself.

```
ab/ab…/         a result: its files, and its record, result.json
work/ab…/       checkpoints of a stage that has not ended
pending/ab…-…/  a result that is being made, or what is on its way out
locks/ab….lock  held by whoever makes the result
turns/          held by runs that work side by side on a machine
plugins/        copies of plugin files, for the nodes of a cluster
```
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from edgeopt.arrays import Json
from edgeopt.fingerprint import digest, file_digest

RECORD = "result.json"
_LARGE_BYTES = 256 << 20  # a fifth of a second of reading
_OWN_DIGEST = "digest"  # of all else that a record says


@dataclass(frozen=True)
class Layout:
    """The places in a store whose folder is `root`; a key is 64 hexadecimal digits."""

    root: Path

    @property
    def all_work(self) -> Path:
        return self.root / "work"

    @property
    def pending(self) -> Path:
        return self.root / "pending"

    @property
    def locks(self) -> Path:
        return self.root / "locks"

    @property
    def turns(self) -> Path:
        return self.root / "turns"

    @property
    def plugins(self) -> Path:
        return self.root / "plugins"

    def shelf(self, key: str) -> Path:
        """The folder of all results whose keys begin as this one does."""
        return self.root / key[:2]

    def result(self, key: str) -> Path:
        return self.shelf(key) / key

    def work(self, key: str) -> Path:
        return self.all_work / key

    def lock(self, key: str) -> Path:
        return self.locks / f"{key}.lock"


@dataclass(frozen=True)
class Record:
    """What a finished result says of itself.

    `label` is what people call its stage, `finished` a Unix time, and `files` the bytes of each of its files, by its
    path in the result's folder. `digests` are the SHA-256 of the files, and `key` is that of the result, so that one
    that stands in another's place is known; records of earlier versions have neither.
    """

    label: str
    values: dict[str, Json]
    seconds: float
    finished: float
    files: dict[str, int]
    digests: dict[str, str] = field(default_factory=dict)
    key: str = ""

    @classmethod
    def of(cls, folder: Path) -> Record | None:
        """The record in a result's folder, None where there is none that can be read, or that is of this folder."""
        try:
            return cls.parsed((folder / RECORD).read_bytes(), folder.name)
        except OSError:
            return None

    @classmethod
    def parsed(cls, text: bytes, key: str) -> Record | None:
        """The record of the result of `key` that a text holds, None where it cannot be read, or is another's."""
        try:
            read = json.loads(text)
            if read.pop(_OWN_DIGEST, None) not in (None, digest(read)) or read.get("key", key) != key:
                return None
            return cls(
                label=str(read["label"]),
                values=dict(read["values"]),
                seconds=float(read["seconds"]),
                finished=float(read["finished"]),
                files={str(name): int(size) for name, size in read["files"].items()},
                digests={str(name): str(digest) for name, digest in read.get("digests", {}).items()},
                key=str(read.get("key", "")),
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    @property
    def size_bytes(self) -> int:
        """Of all files of the result."""
        return sum(self.files.values())

    @property
    def is_portable(self) -> bool:
        """Whether it says all that another machine must know: the digest of each file, none of which would lie outside
        the result's folder. That of an earlier version does not.
        """
        names = (PurePosixPath(name) for name in self.files)
        are_inside = all(not name.is_absolute() and ".." not in name.parts for name in names)
        return bool(self.key) and self.files.keys() == self.digests.keys() and are_inside

    def is_whole(self, folder: Path) -> bool:
        """Whether all files of the result are in its folder, each of its size."""
        try:
            return all((folder / name).stat().st_size == size for name, size in self.files.items())
        except OSError:
            return False

    def has_bytes(self, folder: Path) -> bool:
        """Whether all files of the result have the bytes that they were written with, as far as the record knows.

        A large file, such as a cache of pixels, is read only where it was written to after its record: else a run on it
        would begin with seconds of reading.
        """
        try:
            recorded_ns = (folder / RECORD).stat().st_mtime_ns
            return all(
                _is_large_and_old(folder / name, recorded_ns) or _digest_as_it_looks(_Look.of(folder / name)) == known
                for name, known in self.digests.items()
            )
        except OSError:
            return False

    def write(self, folder: Path) -> None:
        """Writes it into its result's folder."""
        values = json.loads(json.dumps(asdict(self)))
        (folder / RECORD).write_text(json.dumps({**values, _OWN_DIGEST: digest(values)}, indent=1), encoding="utf-8")


def _is_large_and_old(file: Path, recorded_ns: int) -> bool:
    found = file.stat()
    return found.st_size > _LARGE_BYTES and found.st_mtime_ns <= recorded_ns


class _Look(NamedTuple):
    """A file as it looks without being read; one that is written to looks another way."""

    path: Path
    size_bytes: int
    changed_ns: int
    number: int

    @classmethod
    def of(cls, path: Path) -> _Look:
        found = path.stat()
        return cls(path, found.st_size, found.st_ctime_ns, found.st_ino)


@lru_cache(maxsize=10_000)
def _digest_as_it_looks(look: _Look) -> str:
    """Of a file that looks as it did, known from before: a run asks for each result many times."""
    return file_digest(look.path)


def sizes_of(folder: Path) -> dict[str, int]:
    """The bytes of each file in a folder, by its path in it."""
    return {file.relative_to(folder).as_posix(): file.stat().st_size for file in _files(folder)}


def digests_of(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file in a folder, by its path in it."""
    return {file.relative_to(folder).as_posix(): file_digest(file) for file in _files(folder)}


def _files(folder: Path) -> Iterator[Path]:
    return (file for file in sorted(folder.rglob("*")) if file.is_file())
