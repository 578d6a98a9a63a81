"""Reads the splits that `edgeopt.data.prepare` left on disk: every process sees the same uint8 arrays."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from edgeopt.data.found import read_found, write_found
from edgeopt.data.images import read_known, read_pixels
from edgeopt.data.splits import SPLITS
from edgeopt.data.targets import TargetReader, array_file, read_targets
from edgeopt.errors import DataError, Problem
from edgeopt.options import DatasetOptions
from edgeopt.preprocessing import Preprocessing
from edgeopt.tasks import DEFAULT, Task, task_from_json
from edgeopt.types import DataBundle, FoundData, Images, RawDataset, Split, TrainingData

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.arrays import ImageSize, Labels, Pixels


#: How a data set is opened anew, for splits that are not cached. Picklable where several processes read images.
OpenRaw: TypeAlias = Callable[[], RawDataset]


DESCRIPTION = "data.json"
_FOUND = "found.pickle"
_NAMES = "test-names.json"
_SMALL = 8  # px, of images that are read for their digests alone


@dataclass(frozen=True, eq=False)
class KnownImages:
    """By what the images of a test split are known again in another run: `digests`, uint64 (n,), of each as it was
    before preprocessing. `names` are those that a person finds them by, empty where the data set has none.
    """

    digests: NDArray[np.uint64]
    names: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Writes them beside the pixels of their split."""
        np.save(split_file(folder, "test", "digests"), self.digests)
        (folder / _NAMES).write_text(json.dumps(self.names), encoding="utf-8")

    @staticmethod
    def read(folder: Path) -> KnownImages:
        """Reads what `write` wrote."""
        names = json.loads((folder / _NAMES).read_text(encoding="utf-8"))
        return KnownImages(np.load(split_file(folder, "test", "digests")), tuple(names))


@dataclass(frozen=True, eq=False)
class CachedSplit:
    """A split whose pixels stand in a file; processes that read it share the system's memory for it."""

    targets: Any
    file: Path

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def labels(self) -> Labels:
        """The targets of `classification`, int64 (n,)."""
        labels: Labels = self.targets
        return labels

    def pixels(self, indices: Sequence[int] | slice) -> Pixels:
        """Images as uint8, shape (n, height, width, channels), RGB or grey."""
        chosen = indices if isinstance(indices, slice) else np.asarray(indices, dtype=np.intp)
        return np.array(self._array[chosen])

    @cached_property
    def _array(self) -> Pixels:
        return np.load(self.file, mmap_mode="r")  # type: ignore[no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        return _without(self, "_array")  # a pickled memmap would carry every pixel


@dataclass(frozen=True, eq=False)
class StreamedSplit:
    """A split that is too large for the cache: each image is decoded when it is asked for.

    Where its images stand in a few large files, `files`, int64 (n,), says in which, and `window` how far a shuffled
    image moves; see `edgeopt.data.images.SequentialImages`.
    """

    targets: Any
    indices: NDArray[np.int64]
    source: str
    source_length: int
    preprocessing: Preprocessing
    open_raw: OpenRaw = field(repr=False)
    files: NDArray[np.int64] | None = None
    window: int = 0

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def labels(self) -> Labels:
        """The targets of `classification`, int64 (n,)."""
        labels: Labels = self.targets
        return labels

    def pixels(self, indices: Sequence[int] | slice) -> Pixels:
        """Images as uint8, shape (n, height, width, channels), RGB or grey.

        Raises `DataError` for an image that could be read when the data was prepared and cannot now.
        """
        chosen = self.indices[indices if isinstance(indices, slice) else np.asarray(indices, dtype=np.intp)]
        images = [read_pixels(self._images, self.source, int(index), self.preprocessing) for index in chosen]
        return np.stack(images) if images else np.empty((0, *self.preprocessing.shape), dtype=np.uint8)

    def targets_there(self, reader: TargetReader) -> Any:
        """The targets read anew, where they depend on the size that the images are brought to."""
        images = self._images
        return reader.task.collected(
            [
                reader.read(self.source, index, self.preprocessing.geometry_of(images[index]))
                for index in map(int, self.indices)
            ]
        )

    def digests(self, count: int) -> list[int]:
        """By what the first `count` images are known again, see `KnownImages`."""
        chosen = map(int, self.indices[:count])
        return [read_known(self._images, self.source, index, self.preprocessing)[1] for index in chosen]

    @cached_property
    def _images(self) -> Images:
        images: Images = self.open_raw().splits[self.source]
        if len(images) != self.source_length:
            raise DataError(
                Problem(
                    f"the {self.source} split had {self.source_length} images and now has {len(images)}",
                    "the data changed during the run; start it again",
                )
            )
        return images

    def __getstate__(self) -> dict[str, Any]:
        return _without(self, "_images")  # each process opens the data set for itself


def epoch_order(split: Split, seed: int | Sequence[int]) -> NDArray[np.int64]:
    """All places of a split in the order of one epoch, which follows from `seed`: int64 (n,).

    Images that stand in a few large files come file by file, the files in a random order, and each image within the
    split's `window` of where it would come then, so that whoever follows the order reads on and seldom back.
    """
    random = np.random.default_rng(seed)
    if not isinstance(split, StreamedSplit) or split.files is None:
        return random.permutation(len(split))
    names, file = np.unique(split.files, return_inverse=True)
    turn = random.permutation(len(names))
    read_on = np.lexsort((split.indices, turn[file]))
    moved = np.arange(len(split)) + random.random(len(split)) * split.window
    return read_on[np.argsort(moved, kind="stable")]


def window_of(split: Split) -> int | None:
    """How far an image of `split` moves in `epoch_order`; None where it may come at any time."""
    return split.window if isinstance(split, StreamedSplit) and split.files is not None else None


def keep_found(found: FoundData, folder: Path) -> None:
    """Keeps in `folder` what was found of a data set, for splits that are not cached: nobody looks again then."""
    write_found(found, folder / _FOUND)


def opener(folder: Path, load: OpenRaw) -> OpenRaw:
    """Opens the data set as `folder` keeps it, or with `load` where it keeps nothing; can be pickled if `load` can."""
    return partial(_open, folder / _FOUND, load)


def _open(file: Path, load: OpenRaw) -> RawDataset:
    if not file.exists():
        return load()
    return read_found(file).load()


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
        task=_task(description),
    )


def load_task(folder: Path) -> Task:
    """The task that the data in `folder` was prepared for."""
    return _task(_description(folder))


def load_test(folder: Path, raw: OpenRaw) -> Split:
    """The test split of the data that `prepare` left in `folder`, for evaluation."""
    return load_split(folder, "test", raw)


def load_split(folder: Path, name: str, raw: OpenRaw) -> Split:
    """One split of the data that `prepare` left in `folder`; `raw` is called only where pixels were not cached."""
    description = _description(folder)
    split = description["splits"][name]
    targets = _targets(description, folder, name)
    if split["cached"]:
        return CachedSplit(targets, split_file(folder, name, "pixels"))
    indices = np.load(split_file(folder, name, "indices"))
    return StreamedSplit(
        targets,
        indices,
        split["source"],
        split["source_length"],
        Preprocessing.from_json(description["preprocessing"]),
        raw,
        np.load(split_file(folder, name, "files")) if "window" in split else None,
        split.get("window", 0),
    )


def load_test_at_size(folder: Path, image_size: ImageSize, raw: OpenRaw) -> Split:
    """The test split of the data that `prepare` left in `folder`, each image decoded anew to `image_size` px, as `raw`
    opens it.

    Raises `DataError` for images that are no longer as many, when they are read.
    """
    description = _description(folder)
    shown, task = _test_at_size(folder, image_size, raw), _task(description)
    if not task.is_placed:
        return shown
    return replace(shown, targets=shown.targets_there(TargetReader(raw(), task, tuple(description["classes"]))))


def digests_of_test(folder: Path, raw: OpenRaw, count: int) -> list[int]:
    """The digests of the first `count` images of the test split as `raw` opens them, by which images are known again.

    Raises `DataError` for an image that is gone or cannot be read.
    """
    return _test_at_size(folder, _SMALL, raw).digests(count)


def _test_at_size(folder: Path, image_size: ImageSize, raw: OpenRaw) -> StreamedSplit:
    """The test split decoded anew, with the targets that it has at its own size."""
    description = _description(folder)
    split, preprocessing = description["splits"]["test"], Preprocessing.from_json(description["preprocessing"])
    targets, indices = _targets(description, folder, "test"), np.load(split_file(folder, "test", "indices"))
    return StreamedSplit(
        targets, indices, split["source"], split["source_length"], preprocessing.at_size(image_size), raw
    )


def _description(folder: Path) -> dict[str, Any]:
    return json.loads((folder / DESCRIPTION).read_text())  # type: ignore[no-any-return]


def _task(description: Mapping[str, Any]) -> Task:
    return task_from_json(description.get("task", DEFAULT))


def _targets(description: Mapping[str, Any], folder: Path, name: str) -> Any:
    """The targets of a split; data that was prepared before tasks were told has labels."""
    names = tuple(description["splits"][name].get("targets", ("labels",)))
    return read_targets(_task(description), folder, name, names)


def split_file(folder: Path, split: str, what: str) -> Path:
    """Where `what` ("pixels", "indices", "files" or "digests") of a split is kept."""
    return array_file(folder, split, what)


def _without(split: Any, name: str) -> dict[str, Any]:
    return {key: value for key, value in split.__dict__.items() if key != name}
