"""Labelled images in arrays and in files: what most dataset plugins give for a split."""

from __future__ import annotations

import hashlib
import io
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image, UnidentifiedImageError

from edgeopt.errors import DataError, Problem
from edgeopt.preprocessing.decoded import DEPTH

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.arrays import Labels, Pixels
    from edgeopt.preprocessing import Preprocessing
    from edgeopt.preprocessing.geometry import Geometry
    from edgeopt.types import Images

#: What decoders raise for bytes that are not a whole image; a broken PNG is a SyntaxError to Pillow.
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, MemoryError, struct.error, Image.DecompressionBombError)

_BITS_PER_SAMPLE, _MAX_SAMPLE_VALUE = 258, 281  # tags of TIFF


@runtime_checkable
class NamedImages(Protocol):
    """Images that can say where one of them stands, for errors."""

    def name_of(self, index: int) -> str:
        """The file of image `index`, or what else a person finds it by."""
        ...


@runtime_checkable
class SequentialImages(Protocol):
    """Images that stand one behind the other in a few large files, and are read fastest in the order of their places.

    They are prepared in that order, and where they do not fit in the cache, they are trained on in an order that
    shuffles the files, and the images within `window` places.
    """

    @property
    def window(self) -> int:
        """How far a shuffled image moves, in images."""
        ...

    @property
    def file_of(self) -> NDArray[np.int64]:
        """In which of the files each image stands, int64 (n,)."""
        ...


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
        return open_image(self.files[index], self.name_of(index))

    def name_of(self, index: int) -> str:
        """The path of the file."""
        return str(self.files[index])


@dataclass(frozen=True)
class ImageBounds:
    """What is decoded of an image that a stranger sends: the formats that Pillow may try, and the most pixels."""

    formats: tuple[str, ...]
    pixels: int


class LargeImageError(DataError):
    """An image has more pixels than its reader decodes."""


def open_image(source: Path | bytes, name: str, bounds: ImageBounds | None = None) -> Image.Image:
    """Decodes an image file, or the bytes of one, whole; not yet turned upright, made opaque or brought to 8 bits.

    Raises `DataError` with `name` when it is not an image, is cut short or cannot be read; with `bounds`, also when it
    is of another format, and `LargeImageError`, before anything is decoded, when it has too many pixels.
    """
    formats = bounds.formats if bounds else None
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats) as image:
            if bounds and image.width * image.height > bounds.pixels:
                raise _too_large(name, bounds, f"{image.width} × {image.height} pixels")
            image.load()
    except LargeImageError:
        raise
    except Exception as error:  # whatever a decoder stumbles over, it is about this file
        if bounds and isinstance(error, Image.DecompressionBombError):  # Pillow's own limit came first
            raise _too_large(name, bounds, "far more pixels") from error
        raise unreadable(name, error) from error
    if image.mode == "I" and image.format == "PPM":  # Pillow has scaled its values to 16 bits, in numbers of 32
        return Image.fromarray(np.asarray(image).clip(0, 2**16 - 1).astype(np.uint16))
    if image.mode in ("I", "F"):
        raise unreadable(name, ValueError(f"its pixels are 32-bit numbers (mode {image.mode}) of unknown range"))
    if image.mode.startswith("I;16") and (bits := _told_bits(image)):
        image.info[DEPTH] = bits
    return image


def _too_large(name: str, bounds: ImageBounds, pixels: str) -> LargeImageError:
    return LargeImageError(f"{name} has {pixels}, and at most {bounds.pixels:,} are decoded", hint="make it smaller")


def _told_bits(image: Image.Image) -> int | None:
    """How many bits the file says that its values have; None where it only says that they are kept in 16.

    PNG is not asked: its values always fill all 16 bits, by the format's rules.
    """
    tags = getattr(image, "tag_v2", {})
    most, bits = tags.get(_MAX_SAMPLE_VALUE), tags.get(_BITS_PER_SAMPLE)
    most, bits = (value[0] if isinstance(value, tuple) and value else value for value in (most, bits))
    if isinstance(most, int) and 2**8 <= most < 2**16 - 1:
        return most.bit_length()
    return bits if isinstance(bits, int) and 8 < bits < 16 else None


def unreadable(name: str, error: Exception) -> DataError:
    """The error for one image that cannot be read."""
    hint = 'remove it, or set on_error = "skip" to go on without it'
    if isinstance(error, DataError):
        problem = error.problems[0]
        return DataError(replace(problem, message=f"{name} cannot be read: {problem.message}"))
    reason = str(error) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        reason = "not an image"
    elif not isinstance(error, UNREADABLE):
        reason = f"{type(error).__name__}: {error}"
    elif isinstance(error, MemoryError):
        reason = "there is not enough memory for it"
    return DataError(Problem(f"{name} cannot be read: {reason}", hint))


def image_of(pixels: Pixels) -> Image.Image:
    """Pixels, uint8 (height, width, channels), RGB or grey, as Pillow has them."""
    return Image.fromarray(pixels if pixels.shape[-1] > 1 else pixels[..., 0])


def labels_of(values: Any) -> Labels:
    """Class indices as an int64 array, shape (n,)."""
    return np.asarray(values, dtype=np.int64).reshape(-1)


def read_pixels(images: Images, source: str, index: int, preprocessing: Preprocessing) -> Pixels:
    """One image, preprocessed; raises `DataError` with its name when it cannot be read."""
    return _preprocessed(_read(images, source, index), images, source, index, preprocessing)


def read_placed(
    images: Any, source: str, index: int, preprocessing: Preprocessing, *, known: bool = False
) -> tuple[Pixels, Geometry, int]:
    """One image, preprocessed, where its places come from, and where it is `known` the digest of it as it was before,
    else 0; raises as `read_pixels` does.
    """
    image = _read(images, source, index)
    try:
        pixels, geometry = preprocessing.pixels_and_geometry(image)
    except Exception as error:  # as in `_preprocessed`
        raise unreadable(name_of(images, source, index), error) from error
    return pixels, geometry, _digest(image) if known else 0


def read_known(images: Images, source: str, index: int, preprocessing: Preprocessing) -> tuple[Pixels, int]:
    """One image, preprocessed, and the digest of it as it was before; raises as `read_pixels` does.

    By the digest, a number of 64 bits, an image is known again in another run, whatever size that one brings it to.
    """
    image = _read(images, source, index)
    return _preprocessed(image, images, source, index, preprocessing), _digest(image)


def _read(images: Images, source: str, index: int) -> Any:
    try:
        return images[index]
    except UNREADABLE as error:  # a plugin that does not name its images
        raise unreadable(name_of(images, source, index), error) from error


def _preprocessed(image: Any, images: Images, source: str, index: int, preprocessing: Preprocessing) -> Pixels:
    try:
        return preprocessing.pixels(image)
    except Exception as error:  # an image that is decoded late, or that Pillow cannot convert
        raise unreadable(name_of(images, source, index), error) from error


def _digest(image: Any) -> int:
    """A number of 64 bits that tells a decoded image, or an array, from others."""
    if isinstance(image, Image.Image):
        said, data = [image.mode, image.size, image.getpalette()], image.tobytes()
    else:
        array = np.ascontiguousarray(image)
        said, data = [str(array.dtype), array.shape], array.tobytes()
    return int.from_bytes(hashlib.blake2b(repr(said).encode() + data, digest_size=8).digest(), "big")


def name_of(images: Images, source: str, index: int) -> str:
    """What a person finds an image by."""
    return images.name_of(index) if isinstance(images, NamedImages) else f"image {index} of the {source} split"
