"""Declares the data sets `digits`, `shapes`, `image-folder`, `csv`, `jsonl`, `webdataset` and `tfds`."""

from __future__ import annotations

from collections.abc import Iterator

from edgeopt.plugins import DatasetPlugin, RawDataset, digest, hookimpl, versions_of
from edgeopt_images.found import find_folder
from edgeopt_images.options import (
    CsvOptions,
    DigitsOptions,
    ImageFolderOptions,
    JsonlOptions,
    ShapesOptions,
    TfdsOptions,
    WebDatasetOptions,
)
from edgeopt_images.shards import find_webdataset
from edgeopt_images.table import find_table, tasks_of_table
from edgeopt_images.tfds.found import find_tfds, tasks_of_tfds


def load_digits(options: DigitsOptions) -> RawDataset:  # noqa: ARG001 - every data set is given its options
    """scikit-learn's 1,797 handwritten digits, 8x8 px, as one split."""
    from edgeopt_images.digits import read_digits  # scikit-learn is heavy

    return read_digits()


def fingerprint_digits(options: DigitsOptions) -> str:  # noqa: ARG001
    """The digits are part of scikit-learn."""
    return digest(["digits", versions_of(["scikit-learn"])])


def load_shapes(options: ShapesOptions) -> RawDataset:
    """Twelve shapes among clutter."""
    from edgeopt_images.shapes import make_shapes  # numpy is heavy

    return make_shapes(options.images, options.drawn_size, options.seed)


def fingerprint_shapes(options: ShapesOptions) -> str:  # noqa: ARG001 - the options are part of every key
    """The images follow from the options, and from how numpy draws."""
    return digest(["shapes", versions_of(["numpy"])])


@hookimpl
def edgeopt_datasets() -> Iterator[DatasetPlugin]:
    """The data sets of this package."""
    yield DatasetPlugin(
        "digits",
        "scikit-learn's 1,797 handwritten digits, ten classes; needs no network.",
        DigitsOptions,
        load=load_digits,
        fingerprint=fingerprint_digits,
        requires=("scikit-learn",),
        install="edgeopt[vision]",
    )
    yield DatasetPlugin(
        "shapes",
        "Twelve shapes among clutter, generated from a seed: harder than digits; needs no network.",
        ShapesOptions,
        load=load_shapes,
        fingerprint=fingerprint_shapes,
    )
    yield DatasetPlugin(
        "image-folder",
        "Images in folders named after their class, with or without split folders above them.",
        ImageFolderOptions,
        find=find_folder,
    )
    yield DatasetPlugin(
        "csv",
        "Image files that a .csv file names, with a label, and perhaps a split, in each line.",
        CsvOptions,
        find=find_table,
        tasks=("classification", "multi-label"),
        tasks_of=tasks_of_table,
    )
    yield DatasetPlugin(
        "jsonl",
        "Image files that a .jsonl file names: an object with path, label and perhaps a split in each line.",
        JsonlOptions,
        find=find_table,
        tasks=("classification", "multi-label"),
        tasks_of=tasks_of_table,
    )
    yield DatasetPlugin(
        "webdataset",
        "Images and labels in .tar files, as WebDataset has them: here or behind an address, larger than any disk.",
        WebDatasetOptions,
        find=find_webdataset,
    )
    yield DatasetPlugin(
        "tfds",
        "A data set that TensorFlow Datasets prepared on this machine, as TFRecord or array_record files.",
        TfdsOptions,
        find=find_tfds,
        requires=("tensorflow_datasets",),
        install="edgeopt[tfds]",
        tasks=("classification", "multi-label"),
        tasks_of=tasks_of_tfds,
    )
