"""torchvision's data sets by name, opened by torchvision itself; CIFAR's pickles are read without running them."""

from __future__ import annotations

import urllib.error
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.data.images import ArrayImages, labels_of, open_image, unreadable
from edgeopt.plugins import DataError, Images, Problem, RawDataset, first_line
from edgeopt_torchvision.compat import import_torchvision
from edgeopt_torchvision.datasets import CIFAR10_CLASSES, join_batches, read_pickle, verify_files

if TYPE_CHECKING:
    from edgeopt.plugins import Labels
    from edgeopt_torchvision.options import NamedDatasetOptions


@dataclass(frozen=True, eq=False)
class NamedImages:
    """The images of one split as torchvision gives them, int64 `labels` (n,); `files` are their paths in order, or
    none where they stand together in one file.
    """

    source: Any
    labels: Labels
    name: str
    files: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        if self.files:
            return open_image(Path(self.files[index]), self.files[index])
        try:
            return self.source[index][0]
        except Exception as error:  # whatever a reader stumbles over, it is about this image
            raise unreadable(self.name_of(index), error) from error

    def name_of(self, index: int) -> str:
        """The path of the file, or the place of the image in its split."""
        return self.files[index] if self.files else f"image {index} of {self.name}"


def read_named(options: NamedDatasetOptions) -> RawDataset:
    """The splits that the data set comes with, and its classes; one without images is left out.

    Raises `DataError` when it cannot be downloaded, and when its files are not as published or cannot be read.
    """
    if options.name in ("CIFAR10", "CIFAR100"):
        return _cifar(options)
    opened = {split: _opened(options, arguments) for split, arguments in options.entry.splits.items()}
    images = {split: _images(options, source, split) for split, source in opened.items()}
    return _with_classes(_names(opened["train"], options), images)


def _opened(options: NamedDatasetOptions, arguments: Mapping[str, object]) -> Any:
    """Torchvision's data set for one split."""
    source = getattr(import_torchvision().datasets, options.name)
    entry = options.entry
    if entry.checked and not options.verify:
        source = type(source.__name__, (source,), {"_check_integrity": lambda _: True})
    given: dict[str, object] = dict(arguments)
    if entry.variant:
        variant = options.chosen_variant
        given[entry.variant] = int(variant) if variant.isdigit() and entry.variant == "partition" else variant
    if entry.downloads:
        given["download"] = options.download
    try:
        return source(str(options.root), **given)
    except urllib.error.URLError as error:
        hint = f"fetch its archives elsewhere, and unpack them below {options.root}"
        raise DataError(Problem(f"{options.name} cannot be downloaded: {error.reason}", hint)) from error
    except Exception as error:  # each data set has errors of its own
        hint = "unpack the archives of its authors again"
        if entry.checked and options.verify:
            hint += "; for files of your own in this format set verify = false"
        reason = first_line(error) if str(error) else type(error).__name__
        raise DataError(Problem(f"{options.name} cannot be read from {options.root}: {reason}", hint)) from error


def _images(options: NamedDatasetOptions, source: Any, split: str) -> NamedImages:
    labels = labels_of(_last_of_each(getattr(source, options.entry.labels)))
    name = f"{options.name}'s {split} split"
    if not options.entry.files:
        return NamedImages(source, labels, name)
    files = [str(each[0] if isinstance(each, tuple) else each) for each in getattr(source, options.entry.files)]
    order = sorted(range(len(files)), key=files.__getitem__)  # some are listed as the file system has them
    return NamedImages(source, labels[order], name, tuple(files[place] for place in order))


def _last_of_each(values: Any) -> Any:
    if len(values) and isinstance(values[0], tuple):
        return [each[-1] for each in values]
    return values


def _names(source: Any, options: NamedDatasetOptions) -> list[str]:
    """The classes' names, each of its own; none where the data set has numbers alone."""
    if not options.entry.names:
        return []
    given = [", ".join(each) if isinstance(each, tuple) else str(each) for each in getattr(source, options.entry.names)]
    marks: Sequence[Any] = getattr(source, "wnids", range(len(given)))
    return [name if given.count(name) == 1 else f"{name} ({mark})" for name, mark in zip(given, marks, strict=True)]


def _with_classes(names: Sequence[str], images: Mapping[str, NamedImages]) -> RawDataset:
    """The data set with the classes that have images."""
    used = sorted({int(label) for each in images.values() for label in np.unique(each.labels)})
    called = names or [str(label) for label in range(max(used, default=-1) + 1)]
    place = np.full(len(called), -1, dtype=np.int64)
    place[used] = np.arange(len(used))
    splits: dict[str, Images] = {
        split: NamedImages(each.source, place[each.labels], each.name, each.files) for split, each in images.items()
    }
    return RawDataset(tuple(called[label] for label in used), splits)


def _cifar(options: NamedDatasetOptions) -> RawDataset:
    """CIFAR-10 and CIFAR-100, from their own files. Downloads are compared with their checksums by torchvision."""
    files = tuple(options.root / name for name in options.needs)
    if options.download and not all(file.is_file() for file in files):
        _opened(options, {"train": True})
    published = getattr(import_torchvision().datasets, options.name)
    if options.verify:
        verify_files(files, published, options.name)
    if options.name == "CIFAR10":
        return RawDataset(CIFAR10_CLASSES, {"train": join_batches(files[:-1]), "test": join_batches(files[-1:])})
    train, test, meta = files
    names = read_pickle(meta, "list of CIFAR-100's classes", lambda read: tuple(map(str, read["fine_label_names"])))
    splits: dict[str, ArrayImages] = {
        split: join_batches((file,), "fine_labels") for split, file in (("train", train), ("test", test))
    }
    return RawDataset(names, dict(splits))
