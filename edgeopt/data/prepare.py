"""Images to pixels, once: every later process reads the same uint8 arrays.

```
RawDataset ─▶ draw (splits) ─▶ Preprocessing.pixels ─▶ <split>-pixels.npy, <split>-labels.npy ─▶ DataBundle
```

A split that is larger than the cache allows keeps its indices only, and is decoded anew whenever it is read.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgeopt.cores import usable_cores
from edgeopt.data.cache import DESCRIPTION, KnownImages, OpenRaw, keep_found, split_file
from edgeopt.data.depth import deduced_bits
from edgeopt.data.facts import PreparedData, SplitFacts
from edgeopt.data.images import NamedImages, SequentialImages, name_of, read_placed
from edgeopt.data.splits import SPLITS, Drawing, Drawn, draw
from edgeopt.data.strata import draw_by_strata
from edgeopt.data.targets import TargetReader, TargetWriter, close_up, write_header
from edgeopt.errors import DataChangedError, DataError, Problem, printable
from edgeopt.fingerprint import digest
from edgeopt.options import DatasetOptions
from edgeopt.preprocessing import GREY_BITS, Preprocessing
from edgeopt.progress import Bar, Progress
from edgeopt.tasks import Classification, Task, task_to_json
from edgeopt.types import FoundData, RawDataset

if TYPE_CHECKING:
    from edgeopt.arrays import Labels, Pixels


CACHE_BYTES = 4 * 2**30  # of pixels, for each split
_CHUNK = 256  # images in flight
_LABELS = Classification()


def preprocessing_of(options: DatasetOptions) -> Preprocessing:
    """The one preprocessing that a data set's options describe."""
    return Preprocessing(
        image_size=options.image_size,
        resize=options.frame,
        crop=options.image_size,
        mean=options.mean,
        std=options.std,
        interpolation=options.interpolation,
        channel_order="grey" if options.channels == 1 else "RGB",
        background=options.background,
        grey_bits=options.grey_bits or GREY_BITS,
        fit=options.fit,
    )


def prepare(
    raw: RawDataset,
    options: DatasetOptions,
    folder: Path,
    progress: Progress,
    images: int | None = None,
    cache_bytes: int = CACHE_BYTES,
    task: Task = _LABELS,
) -> PreparedData:
    """Draws the splits, reads every image and its target once and writes pixels and targets into `folder`.

    `images` bounds the images of each split (a smoke run), `cache_bytes` the pixels of each split that are kept on
    disk. Returns what the report says: classes, counts by split and class, skipped images, duplicates, bytes.

    Raises `DataError` when the data set cannot be split as asked, or an image cannot be read and `on_error` is "stop".
    """
    _check_shape(raw)
    drawn = draw(raw, options, images) if task.is_of_classes else draw_by_strata(raw, options, task, images)
    preprocessing, depth_warnings = _with_depth(preprocessing_of(options), options, raw, drawn)
    reader = _Reader(raw, preprocessing, options.on_error == "skip", TargetReader(raw, task, drawn.classes))
    total = sum(len(drawing) for drawing in drawn.splits.values())
    with progress.bar("reading images", total) as bar, ThreadPoolExecutor(_threads()) as pool:
        stored = {
            name: _store(
                reader.read(drawing, pool, bar, known=name == "test"),
                name,
                drawing,
                preprocessing.shape,
                folder,
                cache_bytes,
                TargetWriter(task, folder, name, is_ordered=not _is_sequential(raw.splits[drawing.source])),
            )
            for name, drawing in drawn.splits.items()
        }
    _check_whole(stored, drawn.classes if task.is_of_classes else (), reader.skipped)
    _known(raw, drawn.splits["test"], stored["test"]).write(folder)
    fingerprint = digest(
        [
            drawn.classes,
            preprocessing.to_json(),
            [[name, stored[name].targets_digest, stored[name].digest] for name in SPLITS],
        ]
    )
    description = {
        "classes": drawn.classes,
        "preprocessing": preprocessing.to_json(),
        "fingerprint": fingerprint,
        "splits": {
            name: {
                "source": each.source,
                "source_length": len(raw.splits[each.source]),
                "cached": each.cached,
                "targets": each.target_names,
                **_window(raw.splits[each.source], name, each, folder),
            }
            for name, each in stored.items()
        },
        "task": task_to_json(task),
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1))
    duplicates = _duplicates(stored)
    return PreparedData(
        classes=tuple(drawn.classes),
        preprocessing=preprocessing.to_json(),
        fingerprint=fingerprint,
        splits={name: each.facts(drawn.classes if task.is_of_classes else ()) for name, each in stored.items()},
        groups=_group_counts(raw, drawn),
        bytes=sum(each.bytes for each in stored.values()),
        skipped=tuple(reader.skipped),
        duplicates=duplicates,
        warnings=(
            *raw.warnings,
            *drawn.warnings,
            *depth_warnings,
            *_duplicate_warnings(duplicates),
            *_skip_warnings(reader.skipped),
        ),
    )


def prepare_found(
    found: FoundData | None,
    load: OpenRaw,
    options: DatasetOptions,
    folder: Path,
    progress: Progress,
    images: int | None = None,
    cache_bytes: int = CACHE_BYTES,
    task: Task = _LABELS,
) -> PreparedData:
    """`prepare` of what was `found` of a data set, or of what `load` opens where its plugin does not look for files.

    Where pixels of a split are not cached, what was found is kept in `folder`, so that `opener` need not look again.
    """
    prepared = prepare(found.load() if found else load(), options, folder, progress, images, cache_bytes, task)
    if found and not all(split.cached for split in prepared.splits.values()):
        keep_found(found, folder)
    return prepared


# ---- reading and writing -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Stored:
    """What stands on disk of one split, and a hash of each of its images.

    `kept` are the places in the drawing of those that could be read, and `known` the digests of these before
    preprocessing, where they were asked for.
    """

    source: str
    labels: Labels
    targets_digest: str
    target_names: tuple[str, ...]
    hashes: tuple[bytes, ...]
    kept: tuple[int, ...]
    known: tuple[int, ...]
    cached: bool
    bytes: int

    @property
    def digest(self) -> str:
        return hashlib.sha256(b"".join(self.hashes)).hexdigest()

    def facts(self, classes: tuple[str, ...]) -> SplitFacts:
        per_class = {name: int((self.labels == place).sum()) for place, name in enumerate(classes)}
        return SplitFacts(len(self.labels), per_class, self.cached, self.bytes)


def _known(raw: RawDataset, drawing: Drawing, stored: _Stored) -> KnownImages:
    """By what the images of a split are known again."""
    images = raw.splits[drawing.source]
    names: tuple[str, ...] = ()
    if isinstance(images, NamedImages):
        places = (int(drawing.indices[position]) for position in stored.kept)
        names = tuple(printable(name_of(raw.splits[drawing.source], drawing.source, place)) for place in places)
    return KnownImages(np.array(stored.known, dtype=np.uint64), names)


@dataclass(frozen=True, eq=False)
class _Read:
    """An image that was read: its place in the drawing, its pixels (height, width, channels), its target after
    preprocessing, and the digest of it before, 0 where nobody asked.
    """

    position: int
    pixels: Pixels
    target: Any
    known: int = 0


@dataclass(frozen=True, eq=False)
class _Reader:
    """Reads drawn images in order, several at a time; `skipped` collects those that cannot be read."""

    raw: RawDataset
    preprocessing: Preprocessing
    skip: bool
    targets: TargetReader
    skipped: list[str] = field(default_factory=list)

    def read(self, drawing: Drawing, pool: ThreadPoolExecutor, bar: Bar, *, known: bool) -> Iterator[_Read]:
        """Each readable image of the drawing, in the order in which they are read best; `known` asks for digests."""
        images = self.raw.splits[drawing.source]

        def attempt(position: int) -> _Read | DataError:
            place = drawing.source, int(drawing.indices[position]), self.preprocessing
            try:
                pixels, geometry, seen = read_placed(images, *place, known=known)
                return _Read(position, pixels, self.targets.read(*place[:2], geometry), seen)
            except DataError as error:
                return error

        order = np.argsort(drawing.indices) if _is_sequential(images) else np.arange(len(drawing))
        for start in range(0, len(drawing), _CHUNK):
            positions = order[start : start + _CHUNK].tolist()
            for result in pool.map(attempt, positions):
                if not isinstance(result, DataError):
                    yield result
                elif self.skip and not isinstance(result, DataChangedError):
                    self.skipped.append(result.problems[0].message)
                else:
                    pool.shutdown(cancel_futures=True)
                    raise result
            bar.advance(len(positions))


def _store(
    images: Iterator[_Read],
    name: str,
    drawing: Drawing,
    shape: tuple[int, ...],
    folder: Path,
    cache_bytes: int,
    targets: TargetWriter,
) -> _Stored:
    """Writes targets, indices and, where they fit, pixels of one split."""
    cached = len(drawing) * math.prod(shape) <= cache_bytes
    file = split_file(folder, name, "pixels")
    read: list[_Kept] = []
    # written, not mapped: on a full disk a write is an error, and a mapped page kills the process
    with targets, file.open("w+b") if cached else nullcontext() as stream:
        if stream:
            write_header(stream, (len(drawing), *shape))
            first = stream.tell()
        for image in images:
            data = image.pixels.tobytes()
            if stream:
                stream.seek(first + image.position * len(data))
                stream.write(data)
            targets.add(image.position, image.target)
            read.append(_Kept(image.position, image.known, hashlib.blake2b(data, digest_size=16).digest()))
        read.sort(key=lambda each: each.position)
        kept = [each.position for each in read]
        if stream and len(kept) < len(drawing):  # some were skipped, and left holes
            close_up(stream, first, kept, math.prod(shape))
            write_header(stream, (len(kept), *shape))
    np.save(split_file(folder, name, "indices"), drawing.indices[kept])
    size_bytes = file.stat().st_size if cached else 0
    return _Stored(
        source=drawing.source,
        labels=drawing.labels[kept],
        targets_digest=targets.digest,
        target_names=targets.names,
        hashes=tuple(each.hash for each in read),
        kept=tuple(kept),
        known=tuple(each.known for each in read),
        cached=cached,
        bytes=size_bytes,
    )


class _Kept(NamedTuple):
    """What is remembered of an image that was read: its place in the drawing, and digests before and after."""

    position: int
    known: int
    hash: bytes


def _is_sequential(images: Any) -> bool:
    """Whether images are read best in the order in which they stand in a few large files."""
    return isinstance(images, SequentialImages)


def _window(images: Any, name: str, stored: _Stored, folder: Path) -> dict[str, int]:
    """How far a streamed split is shuffled, where its images stand in few files; keeps in which."""
    if stored.cached or not isinstance(images, SequentialImages):
        return {}
    indices = np.load(split_file(folder, name, "indices"))
    np.save(split_file(folder, name, "files"), images.file_of[indices])
    return {"window": images.window}


def _with_depth(
    preprocessing: Preprocessing, options: DatasetOptions, raw: RawDataset, drawn: Drawn
) -> tuple[Preprocessing, list[str]]:
    """The preprocessing with the depth of 16-bit grey images, seen from them where no option says it."""
    if options.grey_bits is not None:
        return preprocessing, []
    chosen = [(raw.splits[each.source], each.indices) for each in drawn.splits.values()]
    bits = deduced_bits(chosen, _threads())
    if bits is None:
        return preprocessing, []
    said = (
        f"no value of the 16-bit images is above {2**bits - 1}: they were taken for values of {bits} bits, "
        "and scaled so; "
        f"set grey_bits = {bits} to say so, or grey_bits = 16 where they are dark"
    )
    return replace(preprocessing, grey_bits=bits), [said]


def _check_shape(raw: RawDataset) -> None:
    """Raises for a data set without training images, or with a split that nothing here knows."""
    if unknown := sorted(set(raw.splits) - {"train", "validation", "test"}):
        raise DataError(
            Problem(f"the data set gives a split {unknown[0]!r}", "splits are named train, validation and test")
        )
    if "train" not in raw.splits or not len(raw.splits["train"]):
        raise DataError(Problem("the data set has no training images", "check where it is read from"))


def _check_whole(stored: dict[str, _Stored], classes: tuple[str, ...], skipped: list[str]) -> None:
    """Raises when skipped images left a split empty, or train without a class."""
    for name, each in stored.items():
        present = set(each.labels.tolist())
        empty = [repr(class_name) for label, class_name in enumerate(classes) if label not in present]
        if not len(each.labels) or (name == "train" and empty):
            what = f"of class {', '.join(empty)} " if len(each.labels) else ""
            raise DataError(
                Problem(
                    f"no readable image {what}is left in the {name} split; {len(skipped)} were skipped",
                    f"the first of them: {skipped[0]}" if skipped else None,
                )
            )


def _group_counts(raw: RawDataset, drawn: Drawn) -> dict[str, int]:
    """How many groups each split has images of, where the data set names groups."""
    return {
        name: len({raw.groups[drawing.source][index] for index in drawing.indices})
        for name, drawing in drawn.splits.items()
        if drawing.source in raw.groups
    }


def _duplicates(stored: dict[str, _Stored]) -> dict[str, int]:
    """How many images of validation and of test have the very pixels of a training or calibration image."""
    seen = {*stored["train"].hashes, *stored["calibration"].hashes}
    return {name: sum(each in seen for each in stored[name].hashes) for name in ("validation", "test")}


def _duplicate_warnings(duplicates: dict[str, int]) -> list[str]:
    return [
        f"{count} images of the {name} split are also training images, which flatters its score"
        for name, count in duplicates.items()
        if count
    ]


def _skip_warnings(skipped: list[str]) -> list[str]:
    return [f"{len(skipped)} images could not be read and were skipped; the first: {skipped[0]}"] if skipped else []


def _threads() -> int:
    return min(8, usable_cores())
