"""The images of a card's self-test: drawn from a few integers, so that a card stays small, no image of anybody's is
given away within a file, and every language draws the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeopt.arrays import ImageSize, sides_of
from edgeopt.cards.card import DrawnImage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeopt.arrays import Pixels

_PERIOD = 512


def images_for(size: ImageSize) -> tuple[DrawnImage, ...]:
    """Three images for a preprocessing that brings them to `size`, px: wide and made smaller, upright and made larger,
    and of that very size.

    Waves and tiles are scaled with the image, so that what they look like does not depend on its size.
    """
    sides = height, width = sides_of(size)
    wide = DrawnImage(*_sides(sides, 1.75, 1.25), _tile(sides, 1.25), _waves(sides, 1.25, (2, 1), (-1, 2), (1, -3)))
    upright = DrawnImage(*_sides(sides, 0.5, 0.8), _tile(sides, 0.5), _waves(sides, 0.5, (1, 1), (3, 0), (0, 2)))
    same = DrawnImage(width, height, _tile(sides, 1.0), _waves(sides, 1.0, (0, 1), (1, -1), (2, 2)))
    return wide, upright, same


def drawn(image: DrawnImage) -> Pixels:
    """The image, uint8 (height, width, 3), as `DrawnImage` says it."""
    import numpy as np  # heavy, and importing this module is part of reading a card

    rows, columns = np.mgrid[: image.height, : image.width]
    inverted = (columns // image.tile + rows // image.tile) % 2 == 1
    channels = [_wave(rows, columns, *wave) for wave in image.waves]
    return np.stack([np.where(inverted, 255 - each, each) for each in channels], axis=2).astype(np.uint8)


def _wave(rows: NDArray[np.int64], columns: NDArray[np.int64], across: int, down: int, start: int) -> NDArray[np.int64]:
    import numpy as np  # heavy, see above

    values: NDArray[np.int64] = np.minimum(255, np.abs((across * columns + down * rows + start) % _PERIOD - 256))
    return values


def _sides(sides: tuple[int, int], wide: float, tall: float) -> tuple[int, int]:
    """Width and height, from height and width."""
    return max(1, round(sides[1] * wide)), max(1, round(sides[0] * tall))


def _tile(sides: tuple[int, int], scale: float) -> int:
    return max(1, round(min(sides) * scale / 5))


def _waves(sides: tuple[int, int], scale: float, *periods: tuple[int, int]) -> tuple[tuple[int, int, int], ...]:
    """A wave for each channel, with so many periods across and down. No number is negative: languages differ in their
    remainders.
    """
    height, width = (max(1, round(side * scale)) for side in sides)
    return tuple(
        (round(_PERIOD * across / width) % _PERIOD, round(_PERIOD * down / height) % _PERIOD, 150 * channel)
        for channel, (across, down) in enumerate(periods)
    )
