"""Targets of images on their way from the data set into the files of a split, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from edgeopt.data.images import UNREADABLE, name_of, unreadable
from edgeopt.errors import DataError, Problem
from edgeopt.fingerprint import digest
from edgeopt.tasks.base import Task
from edgeopt.types import RawDataset

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.preprocessing.geometry import Geometry

_TOGETHER = 256  # targets that are turned into arrays at once
_IN_MEMORY = 2**26  # bytes; larger arrays stay in their files
_TAKEN = frozenset({"pixels", "indices", "digests"})


@dataclass(frozen=True, eq=False)
class TargetReader:
    """Reads the targets of a raw data set for the classes that are kept, in the order of `classes`."""

    raw: RawDataset
    task: Task
    classes: tuple[str, ...]

    def read(self, source: str, index: int, geometry: Geometry) -> Any:
        """The target of an image of one raw split, resized and cut as the image was; that of a changed copy is its
        original's.

        Raises `DataError` with the image's name for one that cannot be read, or that the task cannot use.
        """
        images = self.raw.splits[source]
        name = name_of(images, source, index)
        if source in self.raw.copies and (original := int(self.raw.copies[source][index])) >= 0:
            index = original
        try:
            target = self.task.target(images, index)
            wrong = self.task.wrong(target, len(self.raw.classes))
        except UNREADABLE as error:  # a file that is read late
            raise unreadable(f"the target of {name}", error) from error
        if wrong:
            raise DataError(Problem(f"{name}: {wrong}", 'mend it, or set on_error = "skip" to go on without it'))
        target = self.task.relabelled(target, self._places) if self._places else target
        return self.task.moved(target, geometry)

    @property
    def _places(self) -> Mapping[int, int]:
        """The new number of each class that is kept by its old one; empty where all are, as they were."""
        if self.classes == self.raw.classes:
            return {}
        return {self.raw.classes.index(name): place for place, name in enumerate(self.classes)}


@dataclass(eq=False)
class TargetWriter:
    """Writes the targets of one split, a few at a time, as the arrays of `Task.stored`: one file an array.

    Use it as a context; `digest` and `names` are known at its end. Targets that come in another order than that of
    their places wait in memory for the last one, unless it `is_ordered`.
    """

    task: Task
    folder: Path
    split: str
    is_ordered: bool = True
    _waiting: list[tuple[int, Any]] = field(default_factory=list)
    _files: dict[str, _ArrayFile] = field(default_factory=dict)
    _open: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> TargetWriter:
        return self

    def __exit__(self, *_error: object) -> None:
        try:
            if _error[0] is None:
                self._write()
                for file in self._files.values():
                    file.finish()
        finally:
            self._open.close()

    def add(self, place: int, target: Any) -> None:
        """The target of the image at a place."""
        self._waiting.append((place, target))
        if self.is_ordered and len(self._waiting) == _TOGETHER:
            self._write()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the arrays."""
        return tuple(self._files)

    @property
    def digest(self) -> str:
        """A digest of all targets."""
        digests = [[name, file.digest.hexdigest()] for name, file in sorted(self._files.items())]
        return str(digests[0][1]) if len(digests) == 1 else digest(digests)

    def _write(self) -> None:
        if not self._waiting and self._files:
            return
        self._waiting.sort(key=lambda each: each[0])
        targets = [target for _, target in self._waiting]
        for name, array in self.task.stored(self.task.collected(targets)).items():
            if name not in self._files:
                if name in _TAKEN:
                    raise ValueError(f"the task {self.task.name} stores an array {name!r}, which images have")
                stream = self._open.enter_context(array_file(self.folder, self.split, name).open("wb"))
                self._files[name] = _ArrayFile(stream, array.dtype, array.shape[1:])
            self._files[name].append(array)
        self._waiting.clear()


@dataclass(eq=False)
class _ArrayFile:
    """An .npy file that grows along its first axis."""

    stream: BinaryIO
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    rows: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def __post_init__(self) -> None:
        self.finish()

    def append(self, array: NDArray[Any]) -> None:
        if array.dtype != self.dtype or array.shape[1:] != self.shape:
            what = f"{array.dtype} {array.shape[1:]} and {self.dtype} {self.shape}"
            raise ValueError(f"arrays of targets go together for any number of images, and these are {what}")
        data = np.ascontiguousarray(array).tobytes()
        self.stream.write(data)
        self.digest.update(data)
        self.rows += len(array)

    def finish(self) -> None:
        """Puts the header at the file's front; the format leaves room for any length of the first axis."""
        write_header(self.stream, (self.rows, *self.shape), self.dtype.str)


def write_header(stream: BinaryIO, shape: tuple[int, ...], dtype: str = "|u1") -> None:
    """Puts the header of an .npy file at its front; the format leaves room for any length of the first axis."""
    stream.seek(0)
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})


def close_up(stream: BinaryIO, first: int, kept: list[int], image_bytes: int) -> None:
    """Moves the images that were kept to the front of a file that has one place for each, from byte `first` on."""
    for place, position in enumerate(kept):
        if place != position:
            stream.seek(first + position * image_bytes)
            data = stream.read(image_bytes)
            stream.seek(first + place * image_bytes)
            stream.write(data)
    stream.truncate(first + len(kept) * image_bytes)


def read_targets(task: Task, folder: Path, split: str, names: tuple[str, ...]) -> Any:
    """The targets of a split that `TargetWriter` wrote; large arrays stay in their files."""
    return task.restored({name: _read(array_file(folder, split, name)) for name in names})


def _read(file: Path) -> NDArray[Any]:
    array: NDArray[Any] = np.load(file, mmap_mode="r" if file.stat().st_size > _IN_MEMORY else None)
    return array


def array_file(folder: Path, split: str, what: str) -> Path:
    """Where an array of a split is kept."""
    return folder / f"{split}-{what}.npy"
