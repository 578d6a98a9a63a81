"""Declares the data sets `digits`, `shapes` and `image-folder`."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from edgeopt.fingerprint import digest, versions_of
from edgeopt.hookspecs import hookimpl
from edgeopt.plugin import DatasetOptions, DatasetPlugin
from edgeopt.settings import PosixPath
from edgeopt.types import RawDataset
from edgeopt_pictures.layout import find_layout


class DigitsOptions(DatasetOptions):
    """Nothing but what every data set takes."""


class ShapesOptions(DatasetOptions):
    """How many pictures are drawn, and from which seed."""

    pictures: int = Field(8000, ge=120, le=200_000, description="how many pictures, as many of each class as can be")
    picture_size: int = Field(64, ge=16, le=512, description="edge of the pictures before they are resized, px")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of the drawing")


class ImageFolderOptions(DatasetOptions):
    """Where the pictures are."""

    path: PosixPath = Field(
        description="folder with a folder of pictures for each class, or with train/, val/ and test/ that hold those",
    )


def load_digits(options: DigitsOptions) -> RawDataset:  # noqa: ARG001 - every data set is given its options
    """scikit-learn's 1,797 handwritten digits, 8x8 px, as one split."""
    from edgeopt_pictures.digits import read_digits  # scikit-learn is heavy

    return read_digits()


def fingerprint_digits(options: DigitsOptions) -> str:  # noqa: ARG001
    """The digits are part of scikit-learn."""
    return digest(["digits", versions_of(["scikit-learn"])])


def load_shapes(options: ShapesOptions) -> RawDataset:
    """Twelve shapes among clutter."""
    from edgeopt_pictures.shapes import make_shapes  # numpy is heavy

    return make_shapes(options.pictures, options.picture_size, options.seed)


def fingerprint_shapes(options: ShapesOptions) -> str:  # noqa: ARG001 - the options are part of every key
    """The pictures follow from the options, and from how numpy draws."""
    return digest(["shapes", versions_of(["numpy"])])


def load_folder(options: ImageFolderOptions) -> RawDataset:
    """The pictures below a folder, decoded when they are asked for."""
    from edgeopt_pictures.folder import read_folder  # numpy and Pillow are heavy

    return read_folder(find_layout(options.path))


def fingerprint_folder(options: ImageFolderOptions) -> str:
    """Names, sizes and times of the pictures; raises `DataError` when the folder does not hold what it must."""
    return find_layout(options.path).fingerprint()


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
        "Pictures in folders named after their class, with or without split folders above them.",
        ImageFolderOptions,
        load=load_folder,
        fingerprint=fingerprint_folder,
    )
