"""The images of a card's self-test: drawn from a few integers, so that a card stays small, no image of anybody's is
given away within a file, and every language draws the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeopt.cards.card import DrawnImage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeopt.arrays import Pixels

_PERIOD = 512


def images_for(resize: int) -> tuple[DrawnImage, ...]:
    """Three images for a preprocessing that brings the shorter side to `resize` px: wide and made smaller, upright and
    made larger, and square and left as it is.

    Waves and tiles are scaled with the image, so that what they look like does not depend on its size.
    """
    wide = DrawnImage(*_sides(resize, 1.75, 1.25), _tile(resize, 1.25), _waves(resize, 1.25, (2, 1), (-1, 2), (1, -3)))
    upright = DrawnImage(*_sides(resize, 0.5, 0.8), _tile(resize, 0.5), _waves(resize, 0.5, (1, 1), (3, 0), (0, 2)))
    square = DrawnImage(resize, resize, _tile(resize, 1.0), _waves(resize, 1.0, (0, 1), (1, -1), (2, 2)))
    return wide, upright, square


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


def _sides(resize: int, width: float, height: float) -> tuple[int, int]:
    return max(1, round(resize * width)), max(1, round(resize * height))


def _tile(resize: int, scale: float) -> int:
    return max(1, round(resize * scale / 5))


def _waves(resize: int, scale: float, *periods: tuple[int, int]) -> tuple[tuple[int, int, int], ...]:
    """A wave for each channel, with so many periods across and down. No number is negative: languages differ in their
    remainders.
    """
    side = max(1, round(resize * scale))
    return tuple(
        (round(_PERIOD * across / side) % _PERIOD, round(_PERIOD * down / side) % _PERIOD, 150 * channel)
        for channel, (across, down) in enumerate(periods)
    )
