"""CIFAR-10 and noise, as torchvision has them."""

from __future__ import annotations

import pickle
import urllib.error
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np

from edgeopt.data.images import ArrayImages, labels_of
from edgeopt.plugins import DataError, Problem, RawDataset
from edgeopt_torchvision.compat import import_torchvision

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt_torchvision.options import Cifar10Options, FakeOptions

T = TypeVar("T")

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def read_cifar10(options: Cifar10Options) -> RawDataset:
    """Training and test images, uint8 (n, 32, 32, 3), downloaded first where that is asked for.

    Raises `DataError` when a file is missing, not as published, or not in the format.
    Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009).
    """
    if options.download and not all(file.is_file() for file in options.files):
        _download(options.root)
    if options.verify:
        verify_files(options.files, import_torchvision().datasets.CIFAR10, "CIFAR-10")
    train, test = options.files[:-1], options.files[-1:]
    return RawDataset(CIFAR10_CLASSES, {"train": join_batches(train), "test": join_batches(test)})


def make_fake(options: FakeOptions) -> RawDataset:
    """Images of noise, uint8 (n, drawn_size, drawn_size, 3), with labels that have nothing to do with them.

    They are made at once: torchvision's noise comes from torch's one global generator, which threads must not share.
    """
    edge, count = options.drawn_size, options.images
    shape, first = (3, edge, edge), options.seed * count  # image i comes from seed first + i: none in two data sets
    noise = import_torchvision().datasets.FakeData(count, shape, options.class_count, random_offset=first)
    images, labels = zip(*(noise[index] for index in range(len(noise))), strict=True)
    classes = tuple(f"class-{label}" for label in range(options.class_count))
    return RawDataset(classes, {"train": ArrayImages(np.stack(images), labels_of(labels))})


def _download(root: Path) -> None:
    """Fetches and unpacks the archive; torchvision compares it with its checksum."""
    torchvision = import_torchvision()
    source = torchvision.datasets.CIFAR10
    try:
        torchvision.datasets.utils.download_and_extract_archive(
            source.url, str(root), filename=source.filename, md5=source.tgz_md5
        )
    except (urllib.error.URLError, RuntimeError, ConnectionError, TimeoutError) as error:
        raise DataError(
            Problem(
                f"CIFAR-10 cannot be downloaded: {getattr(error, 'reason', error)}",
                f"fetch {source.filename} elsewhere and unpack it into {root}",
            )
        ) from error


def verify_files(files: tuple[Path, ...], source: Any, name: str) -> None:
    """Raises `DataError` for a file that has not the checksum that torchvision's class `source` publishes for it."""
    integrity = import_torchvision().datasets.utils.check_integrity
    published = dict([*source.train_list, *source.test_list, (source.meta["filename"], source.meta["md5"])])
    for file in files:
        if file.is_file() and not integrity(str(file), published[file.name]):
            raise DataError(
                Problem(
                    f"{file} is not the file that {name}'s authors published",
                    "unpack the archive again; for files of your own in this format set verify = false",
                )
            )


def join_batches(files: tuple[Path, ...], labels_key: str = "labels") -> ArrayImages:
    """The images of several files of CIFAR's format, one behind the other; raises `DataError` for another format."""
    images, labels = zip(
        *(
            read_pickle(
                file, "CIFAR-10 batch" if labels_key == "labels" else "CIFAR-100 batch", partial(_batch, labels_key)
            )
            for file in files
        ),
        strict=True,
    )
    return ArrayImages(np.concatenate(images), labels_of(np.concatenate(labels)))


def _batch(labels_key: str, batch: Any) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (n, 32, 32, 3) and labels (n,) of one batch file."""
    planes, labels = np.asarray(batch["data"], dtype=np.uint8), labels_of(batch[labels_key])
    return planes.reshape(len(labels), 3, 32, 32).transpose(0, 2, 3, 1), labels


def read_pickle(file: Path, what: str, use: Callable[[Any], T]) -> T:
    """What `use` makes of a pickle, which may hold arrays and texts alone; raises `DataError` for a file that is no
    `what`.
    """
    try:
        with file.open("rb") as stream:
            return use(_ArraysOnly(stream, encoding="latin1").load())
    except OSError as error:
        raise DataError(Problem(f"{file} cannot be read: {error.strerror or error}", "check root")) from error
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(Problem(f"{file} is not a {what}: {error}", "unpack the archive again")) from error


class _ArraysOnly(pickle.Unpickler):
    """Reads pickled arrays, lists, dicts and texts: the batches are pickles, and a pickle can run anything."""

    _ARRAY_MODULES = frozenset({"numpy", "numpy.core.multiarray", "numpy._core.multiarray", "numpy._core.numeric"})
    _ARRAY_NAMES = frozenset({"ndarray", "dtype", "_reconstruct", "scalar", "_frombuffer"})

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        super().__init__(stream, encoding=encoding)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes for Python 2
            return _latin1
        if module in self._ARRAY_MODULES and name in self._ARRAY_NAMES:
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which is not image data")


def _latin1(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it holds text in {encoding!r}")
    return text.encode("latin1")
