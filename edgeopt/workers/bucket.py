"""Results of stages behind an address that fsspec opens, for machines that share no disk.

```
KEY.json     the record of a result, as it lies beside its files
KEY.DIGEST   a file of a result, by the SHA-256 of its bytes
edgeopt.txt  what a command writes and reads first, to see that it can
```

Files go first and the record last, so that a result whose record is there is whole. A record names its own files by
their digests: two machines that put a result at once do not mix theirs, and what was damaged is found.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from edgeopt.errors import Problem, StorageError, UserError, first_line
from edgeopt.workers.layout import RECORD, Record

Moved = Callable[[int, int], None]
"""Is told of each piece that was moved: its bytes, and those of all files of the result."""

_SIGN, _SIGN_TEXT = "edgeopt.txt", b"Results of stages of edgeopt, by their keys.\n"
_NO_KEY = "0" * 64
_PIECE_BYTES = 1 << 20
_BLOCK_BYTES = 8 << 20  # of a file that is on its way, in memory: S3 takes 10,000 of them
_PASSWORD = re.compile(r"(?<=://)[^/@]*@")
_AS_IN = "an address is one that fsspec opens, as s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or file:///FOLDER"

_GIVEN_UP: dict[str, str] = {}  # by address


class BucketError(StorageError):
    """A bucket cannot be reached, read or written."""


class DamagedError(Exception):
    """What a bucket has of a result is not what was put there; the message says what is wrong."""


@dataclass(frozen=True)
class Bucket:
    """Results behind an address. `is_tried` says that somebody has seen it work."""

    address: str
    is_tried: bool = False

    def __str__(self) -> str:
        """The address, without a name and password that may stand in it."""
        return _PASSWORD.sub("", self.address)

    def tried(self) -> Bucket:
        """This bucket, which was written to and read.

        Raises `BucketError` where it cannot be used, also for want of a package.
        """
        if self.is_tried:
            return self
        self._write(_SIGN, [_SIGN_TEXT])
        for _ in self._pieces(_SIGN):
            pass
        self.has(_NO_KEY)  # where one may not list, a bucket says "forbidden" of what is not there
        _GIVEN_UP.pop(self.address, None)
        return replace(self, is_tried=True)

    @property
    def given_up(self) -> str:
        """Why this process asks it no more, empty while it does."""
        return _GIVEN_UP.get(self.address, "")

    def give_up(self, reason: str) -> bool:
        """Asks it no more in this process, whose next runs would wait for its failure again; whether that is new."""
        return _GIVEN_UP.setdefault(self.address, reason) is reason

    def has(self, key: str) -> bool:
        """Whether the record of a result is there. Raises `BucketError`, as all that follow."""
        with self._asked() as (files, root):
            try:
                files.info(root + _record_of(key))
            except FileNotFoundError:
                return False
        return True

    def fetch(self, key: str, folder: Path, moved: Moved) -> bool:
        """Writes the files of a result and its record into a folder; whether there is one.

        Raises `DamagedError` where it is not whole.
        """
        try:
            text = b"".join(self._pieces(_record_of(key)))
        except FileNotFoundError:
            return False
        record = Record.parsed(text, key)
        if record is None or not record.is_portable:
            raise DamagedError("its record cannot be read")
        for name, digest in record.digests.items():
            target, size = folder / name, record.files[name]
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                _keep(
                    self._pieces(f"{key}.{digest}"), target, size, digest, lambda count: moved(count, record.size_bytes)
                )
            except FileNotFoundError:
                raise DamagedError(f"{name} is missing") from None
        (folder / RECORD).write_bytes(text)
        return True

    def put(self, key: str, folder: Path, moved: Moved) -> None:
        """Puts the files of a result that lies in a folder, and its record, in the place of what is there."""
        text = (folder / RECORD).read_bytes()
        record = Record.parsed(text, key)
        assert record is not None and record.is_portable
        for name, digest in record.digests.items():
            self._write(f"{key}.{digest}", _read(folder / name, lambda count: moved(count, record.size_bytes)))
        self._write(_record_of(key), [text])

    def _pieces(self, name: str) -> Iterator[bytes]:
        """The bytes of an object. Raises `FileNotFoundError` where there is none."""
        with self._asked() as (files, root), files.open(root + name, "rb", block_size=_BLOCK_BYTES) as source:
            while piece := source.read(_PIECE_BYTES):
                yield piece

    def _write(self, name: str, pieces: Iterable[bytes]) -> None:
        with self._asked(writes=True) as (files, root):
            target = files.open(root + name, "wb", block_size=_BLOCK_BYTES)
        for piece in pieces:
            with self._asked(writes=True):
                target.write(piece)
        with self._asked(writes=True):
            target.close()

    @contextmanager
    def _asked(self, *, writes: bool = False) -> Iterator[tuple[Any, str]]:
        """The file system behind the address, and what paths begin with; errors say what to do, but for
        `FileNotFoundError` of what is only read.
        """
        hint = f"check address, connection and credentials, which must allow to read, write and list; {_AS_IN}"
        try:
            yield _opened(self.address)
        except UserError:
            raise
        except FileNotFoundError as error:
            if not writes:
                raise
            hint = f"make it, or mount it: edgeopt makes no buckets and no folders for them; {_AS_IN}"
            raise BucketError(Problem(f"the bucket {self} is not there", hint)) from error
        except ImportError as error:
            hint = "install it with pip, on each machine that uses the bucket"
            raise BucketError(Problem(f"the bucket {self} needs a package: {first_line(error)}", hint)) from error
        except Exception as error:  # each kind of bucket, and its library, has errors of its own
            reason = f"{type(error).__name__}: {_PASSWORD.sub('', first_line(error))}"
            raise BucketError(Problem(f"the bucket {self} cannot be used: {reason}", hint)) from error


@cache
def _opened(address: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs  # a tenth of a second, and only where there is a bucket

    files, root = url_to_fs(address)
    return files, f"{root.rstrip('/')}/"


def _record_of(key: str) -> str:
    return f"{key}.json"


def _read(file: Path, moved: Callable[[int], None]) -> Iterator[bytes]:
    with file.open("rb") as source:
        while piece := source.read(_PIECE_BYTES):
            yield piece
            moved(len(piece))


def _keep(pieces: Iterable[bytes], target: Path, size: int, digest: str, moved: Callable[[int], None]) -> None:
    """Writes a file of so many bytes; raises `DamagedError` where they are more, fewer or others."""
    read, count = hashlib.sha256(), 0
    with target.open("wb") as file:
        for piece in pieces:
            read.update(piece)
            count += len(piece)
            if count > size:
                break
            file.write(piece)
            moved(len(piece))
    if count != size or read.hexdigest() != digest:
        raise DamagedError(f"{target.name} is not the file of {size:,} bytes that was put there")
