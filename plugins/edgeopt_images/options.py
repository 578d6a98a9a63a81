"""The options of `digits`, `shapes` and `image-folder`."""

from __future__ import annotations

from pydantic import Field

from edgeopt.plugins import DatasetOptions, PosixPath


class DigitsOptions(DatasetOptions):
    """Nothing but what every data set takes."""


class ShapesOptions(DatasetOptions):
    """How many images are drawn, and from which seed."""

    images: int = Field(8000, ge=120, le=200_000, description="how many images, as many of each class as can be")
    drawn_size: int = Field(64, ge=16, le=512, description="edge of the images before they are resized, px")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of the drawing")


class ImageFolderOptions(DatasetOptions):
    """Where the images are."""

    path: PosixPath = Field(
        description="folder with a folder of images for each class, or with train/, val/ and test/ that hold those",
    )
    splits: bool | None = Field(
        None,
        description="whether folders called train, Training, seg_train, val, dev, test and the like are splits (true) "
        "or classes (false); seen from what lies in them when left out",
    )
