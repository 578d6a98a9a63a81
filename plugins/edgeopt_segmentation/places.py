"""Masks, integers (height, width), as their images are resized, cut and laid over."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GOLDEN = 0.618033988749895  # hues that follow one another lie far apart
_OPACITY = 140
_TOLD = 4  # classes of an image, in words


def moved(mask: NDArray[np.uint8], geometry: Any, outside: int) -> NDArray[np.uint8]:
    """The mask of an image in the frame of a network, by the image's `Geometry`: the value whose place is nearest, and
    `outside` where the image does not reach.
    """
    (height, width), (left, top) = geometry.network, geometry.offset
    rows, columns = (
        np.floor((np.arange(size) + 0.5 - start) / scale).astype(np.int64)
        for size, start, scale in zip((height, width), (top, left), reversed(geometry.scale), strict=True)
    )
    inside = ((rows >= 0) & (rows < mask.shape[0]))[:, None] & ((columns >= 0) & (columns < mask.shape[1]))[None, :]
    found = mask[rows.clip(0, mask.shape[0] - 1)][:, columns.clip(0, mask.shape[1] - 1)]
    return np.where(inside, found, np.uint8(outside)).astype(np.uint8)


def told(shares: Sequence[tuple[int, float]], classes: Sequence[str]) -> str:
    """Such as "road 61 %, sky 30 %, car 9 %"."""
    return ", ".join(f"{classes[index]} {100 * share:.0f} %" for index, share in shares[:_TOLD]) or "nothing judged"


def overlay_png(mask: NDArray[Any], ignored: int) -> str:
    """A transparent PNG of a mask, base64: a colour for each class but the first, which most often is the ground."""
    from PIL import Image  # heavy: only reports draw

    colours = np.zeros((256, 4), np.uint8)
    for index in range(1, 256):
        colours[index] = (*_colour(index * _GOLDEN % 1.0), _OPACITY)
    colours[ignored] = 0
    file = io.BytesIO()
    Image.fromarray(colours[mask.astype(np.uint8)], "RGBA").save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def _colour(hue: float) -> tuple[int, int, int]:
    import colorsys

    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)
