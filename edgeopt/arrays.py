"""What arrays are called in signatures, and what a file takes for an image. Light: NumPy is imported where arrays are
made.

This module goes to devices as it is: it imports the standard library and NumPy alone.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:  # NumPy takes a tenth of a second, and is only named here
    import numpy as np
    from numpy.typing import NDArray

    Pixels: TypeAlias = NDArray[np.uint8]
    Labels: TypeAlias = NDArray[np.int64]
    Logits: TypeAlias = NDArray[np.float32]
    Outputs: TypeAlias = tuple[NDArray[Any], ...]

Json: TypeAlias = Any  # a value that `json` writes: str, int, float, bool, None, list, dict
ImageSize: TypeAlias = int | tuple[int, int]  # px: the edge of a square, or (height, width)


def sides_of(size: ImageSize) -> tuple[int, int]:
    """Height and width of a size, px."""
    return (size, size) if isinstance(size, int) else size


def size_of(height: int, width: int) -> ImageSize:
    """A height and a width as one size: an edge where they are equal."""
    return height if height == width else (height, width)


def size_in_words(size: ImageSize, between: str = " × ") -> str:
    """Such as "224", or "48 × 192": height before width."""
    return between.join(map(str, [size] if isinstance(size, int) else size))


class InputKind(StrEnum):
    """What a file takes for an image: normalized floats, channels first, or pixels as a camera has them."""

    FLOAT_NCHW = "float-nchw"
    UINT8_NHWC = "uint8-nhwc"


def normalized(pixels: Pixels, scale: tuple[float, ...], offset: tuple[float, ...]) -> NDArray[np.float32]:
    """Pixels, uint8 (n, height, width, channels), as pixel * scale + offset: float32 (n, channels, height, width),
    contiguous.

    `scale` and `offset` have a number for each channel.
    """
    import numpy as np  # takes a tenth of a second, see above

    planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float32)
    planes *= np.asarray(scale, dtype=np.float32).reshape(1, -1, 1, 1)
    planes += np.asarray(offset, dtype=np.float32).reshape(1, -1, 1, 1)
    return planes
