"""What arrays are called in signatures, and what a file takes for an image. Light: NumPy is imported where arrays are
made.

This module goes to devices as it is: it imports the standard library and NumPy alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

if TYPE_CHECKING:  # NumPy takes a tenth of a second, and is only named here
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    Pixels: TypeAlias = NDArray[np.uint8]
    Labels: TypeAlias = NDArray[np.int64]
    Logits: TypeAlias = NDArray[np.float32]
    # What a network, a file or a predictor answers for a batch: an array for each of its outputs, in the order of
    # `ModelState.output_names`, images first. Classification's is a tuple of one, the logits.
    Outputs: TypeAlias = tuple[NDArray[Any], ...]

OUTPUTS = "outputs.npz"
"""What files are called in which answers are kept."""

_TOGETHER = 1 << 21  # numbers of answers that are looked at at a time

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


def as_outputs(answer: Any) -> Outputs:
    """What a predictor or a model of another framework answered, with real numbers as float32 and others as they are.

    Raises `TypeError` for anything but a tuple of arrays, such as one array.
    """
    import numpy as np  # as above

    if not isinstance(answer, (tuple, list)):
        raise TypeError(f"the answer is a {type(answer).__name__}, not a tuple with an array for each output")
    arrays = [np.asarray(each) for each in answer]
    return tuple(each.astype(np.float32, copy=False) if each.dtype.kind == "f" else each for each in arrays)


def joined(pieces: Sequence[Outputs]) -> Outputs:
    """The answers of several calls, one after the other, as those of one."""
    import numpy as np  # as above

    return tuple(np.concatenate(parts) for parts in zip(*pieces, strict=True))


def of_images(outputs: Outputs, chosen: Any) -> Outputs:
    """The answers for some images: `chosen` is a slice, or their places."""
    return tuple(each[chosen] for each in outputs)


def in_parts(*arrays: NDArray[Any]) -> Iterator[tuple[NDArray[Any], ...]]:
    """The arrays, which have a row an image, some images at a time: so few that a copy of them is small beside them.
    Answers for every place of many images fill most of a memory as they are.
    """
    images, largest = len(arrays[0]), max(each.size for each in arrays)
    together = max(1, _TOGETHER * images // max(1, largest))
    for start in range(0, images, together):
        yield tuple(each[start : start + together] for each in arrays)


def save_outputs(path: Path, outputs: Outputs) -> None:
    """Writes answers to a file, whatever its ending is."""
    import numpy as np  # as above

    with path.open("wb") as file:
        np.savez(file, *outputs)


def load_outputs(file: Path | BinaryIO) -> Outputs:
    """Reads what `save_outputs` wrote."""
    import numpy as np  # as above

    with np.load(file, allow_pickle=False) as kept:
        return tuple(kept[f"arr_{place}"] for place in range(len(kept.files)))
