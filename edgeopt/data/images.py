"""Labelled images in arrays and in files: what most dataset plugins give for a split."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from edgeopt.errors import DataError, Problem

if TYPE_CHECKING:
    from edgeopt.arrays import Labels, Pixels
    from edgeopt.preprocessing import Preprocessing
    from edgeopt.types import Images

#: What Pillow raises for bytes that are not a whole image; a broken PNG is a SyntaxError to it.
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """Images in memory: uint8 `images` (n, height, width) or (n, height, width, 3), int64 `labels` (n,)."""

    images: Pixels
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        return self.images[index]


@dataclass(frozen=True, eq=False)
class FileImages:
    """Images in files, decoded when asked for; int64 `labels` (n,)."""

    files: tuple[Path, ...]
    labels: Labels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        return open_image(self.files[index], str(self.files[index]))


def open_image(source: Path | bytes, name: str) -> Image.Image:
    """Decodes an image file, or the bytes of one, whole: 8 bits a channel, not yet turned upright.

    Raises `DataError` with `name` when it is not an image, is cut short or cannot be read.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            image.load()
    except UNREADABLE as error:
        raise unreadable(name, error) from error
    if image.mode.startswith("I;16"):  # Pillow would clip 16 bits to 8 instead of scaling them
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise unreadable(name, ValueError(f"its pixels are 32-bit numbers (mode {image.mode}) of unknown range"))
    return image


def unreadable(name: str, error: Exception) -> DataError:
    """The error for one image that cannot be read."""
    reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__
    return DataError(
        Problem(f"{name} cannot be read: {reason}", 'remove it, or set on_error = "skip" to go on without it')
    )


def labels_of(values: Any) -> Labels:
    """Class indices as an int64 array, shape (n,)."""
    return np.asarray(values, dtype=np.int64).reshape(-1)


def read_pixels(images: Images, source: str, index: int, preprocessing: Preprocessing) -> Pixels:
    """One image, preprocessed; raises `DataError` when it cannot be read."""
    try:
        return preprocessing.pixels(images[index])
    except UNREADABLE as error:  # a plugin that decodes late, or does not name its images
        raise unreadable(f"image {index} of the {source} split", error) from error
