"""Pictures to pixels, once: every later process reads the same uint8 arrays.

```
RawDataset ─▶ draw (splits) ─▶ Preprocessing.pixels ─▶ <split>-pixels.npy, <split>-labels.npy ─▶ DataBundle
```

A split that is larger than the cache allows keeps its indices only, and is decoded anew whenever it is read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np

from edgeopt.errors import DataError, Problem
from edgeopt.fingerprint import digest
from edgeopt.pictures import UNREADABLE, unreadable
from edgeopt.preprocessing import Preprocessing
from edgeopt.progress import Bar, Progress
from edgeopt.settings import DatasetOptions
from edgeopt.splits import SPLITS, Drawing, Drawn, draw
from edgeopt.types import DataBundle, Json, Pictures, RawDataset, Split, TrainingData

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.types import Labels, Pixels

#: How a data set is opened anew, for splits that are not cached. Picklable where several processes read pictures.
OpenRaw: TypeAlias = Callable[[], RawDataset]

CACHE_BYTES = 4 * 2**30  # of pixels, for each split
_CHUNK = 256  # pictures in flight
_DESCRIPTION = "data.json"


@dataclass(frozen=True, eq=False)
class CachedSplit:
    """A split whose pixels stand in a file; processes that read it share the system's memory for it."""

    labels: Labels
    file: Path

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, indices: Sequence[int] | slice) -> Pixels:
        """Pictures as uint8, shape (n, image_size, image_size, 3), RGB."""
        chosen = indices if isinstance(indices, slice) else np.asarray(indices, dtype=np.intp)
        return np.array(self._array[chosen])

    @cached_property
    def _array(self) -> Pixels:
        return np.load(self.file, mmap_mode="r")  # type: ignore[no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        return _without(self, "_array")  # a pickled memmap would carry every pixel


@dataclass(frozen=True, eq=False)
class StreamedSplit:
    """A split that is too large for the cache: each picture is decoded when it is asked for."""

    labels: Labels
    indices: NDArray[np.int64]
    source: str
    source_length: int
    preprocessing: Preprocessing
    open_raw: OpenRaw = field(repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, indices: Sequence[int] | slice) -> Pixels:
        """Pictures as uint8, shape (n, image_size, image_size, 3), RGB.

        Raises `DataError` for a picture that could be read when the data was prepared and cannot now.
        """
        size = self.preprocessing.image_size
        chosen = self.indices[indices if isinstance(indices, slice) else np.asarray(indices, dtype=np.intp)]
        pictures = [_pixels(self._pictures, self.source, int(index), self.preprocessing) for index in chosen]
        return np.stack(pictures) if pictures else np.empty((0, size, size, 3), dtype=np.uint8)

    @cached_property
    def _pictures(self) -> Pictures:
        pictures = self.open_raw().splits[self.source]
        if len(pictures) != self.source_length:
            raise DataError(
                Problem(
                    f"the {self.source} split had {self.source_length} pictures and now has {len(pictures)}",
                    "the data changed during the run; start it again",
                )
            )
        return pictures

    def __getstate__(self) -> dict[str, Any]:
        return _without(self, "_pictures")  # each process opens the data set for itself


def preprocessing_of(options: DatasetOptions) -> Preprocessing:
    """The one preprocessing that a data set's options describe."""
    return Preprocessing(
        image_size=options.image_size,
        resize=options.resize or options.image_size,
        crop=options.image_size,
        mean=options.mean,
        std=options.std,
        interpolation=options.interpolation,
    )


def prepare(
    raw: RawDataset,
    options: DatasetOptions,
    folder: Path,
    progress: Progress,
    pictures: int | None = None,
    cache_bytes: int = CACHE_BYTES,
) -> dict[str, Json]:
    """Draws the splits, reads every picture once and writes the pixels into `folder`.

    `pictures` bounds the pictures of each split (a smoke run), `cache_bytes` the pixels of each split that are kept on
    disk. Returns what the report says: classes, counts by split and class, skipped pictures, duplicates, bytes.

    Raises `DataError` when the data set cannot be split as asked, or a picture cannot be read and `on_error` is "stop".
    """
    _check_shape(raw)
    drawn = draw(raw, options, pictures)
    preprocessing = preprocessing_of(options)
    reader = _Reader(raw, preprocessing, options.on_error == "skip")
    total = sum(len(drawing) for drawing in drawn.splits.values())
    with progress.bar("reading pictures", total) as bar, ThreadPoolExecutor(_threads()) as pool:
        stored = {
            name: _store(reader.read(drawing, pool, bar), name, drawing, preprocessing.image_size, folder, cache_bytes)
            for name, drawing in drawn.splits.items()
        }
    _check_whole(stored, drawn.classes, reader.skipped)
    fingerprint = digest(
        [
            drawn.classes,
            preprocessing.to_json(),
            [[name, stored[name].labels_digest, stored[name].digest] for name in SPLITS],
        ]
    )
    description = {
        "classes": drawn.classes,
        "preprocessing": preprocessing.to_json(),
        "fingerprint": fingerprint,
        "splits": {
            name: {"source": each.source, "source_length": len(raw.splits[each.source]), "cached": each.cached}
            for name, each in stored.items()
        },
    }
    (folder / _DESCRIPTION).write_text(json.dumps(description, indent=1))
    duplicates = _duplicates(stored)
    return {
        "classes": list(drawn.classes),
        "preprocessing": preprocessing.to_json(),
        "fingerprint": fingerprint,
        "splits": {name: each.facts(drawn.classes) for name, each in stored.items()},
        "groups": _group_counts(raw, drawn),
        "bytes": sum(each.bytes for each in stored.values()),
        "skipped": reader.skipped,
        "duplicates": duplicates,
        "warnings": [*drawn.warnings, *_duplicate_warnings(duplicates), *_skip_warnings(reader.skipped)],
    }


def load_data(folder: Path, options: DatasetOptions, raw: OpenRaw) -> DataBundle:
    """The data that `prepare` left in `folder`: what passes see, and the test split."""
    return DataBundle(load_training(folder, options, raw), load_test(folder, raw))


def load_training(folder: Path, options: DatasetOptions, raw: OpenRaw) -> TrainingData:
    """What passes see of the data that `prepare` left in `folder`; files of the test split are not touched."""
    description = _description(folder)
    train, calibration, validation = (load_split(folder, name, raw) for name in SPLITS[:3])
    return TrainingData(
        classes=tuple(description["classes"]),
        preprocessing=Preprocessing.from_json(description["preprocessing"]),
        train=train,
        calibration=calibration,
        validation=validation,
        fingerprint=description["fingerprint"],
        augmentation=options.augmentation,
    )


def load_test(folder: Path, raw: OpenRaw) -> Split:
    """The test split of the data that `prepare` left in `folder`, for evaluation."""
    return load_split(folder, "test", raw)


def load_split(folder: Path, name: str, raw: OpenRaw) -> Split:
    """One split of the data that `prepare` left in `folder`; `raw` is called only where pixels were not cached."""
    description = _description(folder)
    split = description["splits"][name]
    labels = np.load(_file(folder, name, "labels"))
    if split["cached"]:
        return CachedSplit(labels, _file(folder, name, "pixels"))
    indices = np.load(_file(folder, name, "indices"))
    return StreamedSplit(
        labels,
        indices,
        split["source"],
        split["source_length"],
        Preprocessing.from_json(description["preprocessing"]),
        raw,
    )


# ---- reading and writing ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Stored:
    """What stands on disk of one split, and a hash of each of its pictures."""

    source: str
    labels: Labels
    hashes: tuple[bytes, ...]
    cached: bool
    bytes: int

    @property
    def digest(self) -> str:
        return hashlib.sha256(b"".join(self.hashes)).hexdigest()

    @property
    def labels_digest(self) -> str:
        return hashlib.sha256(self.labels.astype("<i8").tobytes()).hexdigest()

    def facts(self, classes: tuple[str, ...]) -> dict[str, Json]:
        counts = np.bincount(self.labels, minlength=len(classes))
        per_class = {name: int(count) for name, count in zip(classes, counts, strict=True)}
        return {"count": len(self.labels), "per_class": per_class, "cached": self.cached, "bytes": self.bytes}


@dataclass(frozen=True, eq=False)
class _Reader:
    """Reads drawn pictures in order, several at a time; `skipped` collects those that cannot be read."""

    raw: RawDataset
    preprocessing: Preprocessing
    skip: bool
    skipped: list[str] = field(default_factory=list)

    def read(self, drawing: Drawing, pool: ThreadPoolExecutor, bar: Bar) -> Iterator[tuple[int, Pixels]]:
        """Position in the drawing and pixels (image_size, image_size, 3) of each readable picture."""
        pictures = self.raw.splits[drawing.source]

        def attempt(position: int) -> Pixels | DataError:
            try:
                return _pixels(pictures, drawing.source, int(drawing.indices[position]), self.preprocessing)
            except DataError as error:
                return error

        for start in range(0, len(drawing), _CHUNK):
            positions = range(start, min(start + _CHUNK, len(drawing)))
            for position, result in zip(positions, pool.map(attempt, positions), strict=True):
                if not isinstance(result, DataError):
                    yield position, result
                elif self.skip:
                    self.skipped.append(result.problems[0].message)
                else:
                    pool.shutdown(cancel_futures=True)
                    raise result
            bar.advance(len(positions))


def _pixels(pictures: Pictures, source: str, index: int, preprocessing: Preprocessing) -> Pixels:
    """One picture, preprocessed; raises `DataError` when it cannot be read."""
    try:
        return preprocessing.pixels(pictures[index])
    except UNREADABLE as error:  # a plugin that decodes late, or does not name its pictures
        raise unreadable(f"picture {index} of the {source} split", error) from error


def _store(
    pictures: Iterator[tuple[int, Pixels]], name: str, drawing: Drawing, size: int, folder: Path, cache_bytes: int
) -> _Stored:
    """Writes labels, indices and, where they fit, pixels of one split."""
    cached = len(drawing) * size * size * 3 <= cache_bytes
    file = _file(folder, name, "pixels")
    kept: list[int] = []
    hashes: list[bytes] = []
    # written, not mapped: on a full disk a write is an error, and a mapped page kills the process
    with file.open("wb") if cached else nullcontext() as stream:
        if stream:
            _write_header(stream, (len(drawing), size, size, 3))
        for position, pixels in pictures:
            data = pixels.tobytes()
            if stream:
                stream.write(data)
            kept.append(position)
            hashes.append(hashlib.blake2b(data, digest_size=16).digest())
        if stream:
            _write_header(stream, (len(kept), size, size, 3))  # some may have been skipped
    labels = drawing.labels[kept]
    np.save(_file(folder, name, "labels"), labels)
    np.save(_file(folder, name, "indices"), drawing.indices[kept])
    return _Stored(drawing.source, labels, tuple(hashes), cached, file.stat().st_size if cached else 0)


def _write_header(stream: BinaryIO, shape: tuple[int, ...]) -> None:
    """Puts the header of an .npy file at its front; the format leaves room for any length of the first axis."""
    stream.seek(0)
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _check_shape(raw: RawDataset) -> None:
    """Raises for a data set without training pictures, or with a split that nothing here knows."""
    if unknown := sorted(set(raw.splits) - {"train", "validation", "test"}):
        raise DataError(
            Problem(f"the data set gives a split {unknown[0]!r}", "splits are named train, validation and test")
        )
    if "train" not in raw.splits or not len(raw.splits["train"]):
        raise DataError(Problem("the data set has no training pictures", "check where it is read from"))


def _check_whole(stored: dict[str, _Stored], classes: tuple[str, ...], skipped: list[str]) -> None:
    """Raises when skipped pictures left a split empty, or train without a class."""
    for name, each in stored.items():
        counts = np.bincount(each.labels, minlength=len(classes))
        empty = [repr(classes[label]) for label in np.flatnonzero(counts == 0)]
        if not len(each.labels) or (name == "train" and empty):
            what = f"of class {', '.join(empty)} " if len(each.labels) else ""
            raise DataError(
                Problem(
                    f"no readable picture {what}is left in the {name} split; {len(skipped)} were skipped",
                    f"the first of them: {skipped[0]}" if skipped else None,
                )
            )


def _group_counts(raw: RawDataset, drawn: Drawn) -> dict[str, int]:
    """How many groups each split has pictures of, where the data set names groups."""
    return {
        name: len({raw.groups[drawing.source][index] for index in drawing.indices})
        for name, drawing in drawn.splits.items()
        if drawing.source in raw.groups
    }


def _duplicates(stored: dict[str, _Stored]) -> dict[str, int]:
    """How many pictures of validation and of test have the very pixels of a training or calibration picture."""
    seen = {*stored["train"].hashes, *stored["calibration"].hashes}
    return {name: sum(each in seen for each in stored[name].hashes) for name in ("validation", "test")}


def _duplicate_warnings(duplicates: dict[str, int]) -> list[str]:
    return [
        f"{count} pictures of the {name} split are also training pictures, which flatters its score"
        for name, count in duplicates.items()
        if count
    ]


def _skip_warnings(skipped: list[str]) -> list[str]:
    return [f"{len(skipped)} pictures could not be read and were skipped; the first: {skipped[0]}"] if skipped else []


def _description(folder: Path) -> dict[str, Any]:
    return json.loads((folder / _DESCRIPTION).read_text())  # type: ignore[no-any-return]


def _file(folder: Path, split: str, what: str) -> Path:
    return folder / f"{split}-{what}.npy"


def _threads() -> int:
    return min(8, os.cpu_count() or 1)


def _without(split: Any, name: str) -> dict[str, Any]:
    return {key: value for key, value in split.__dict__.items() if key != name}
