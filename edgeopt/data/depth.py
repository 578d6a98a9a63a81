"""How many bits grey values in 16-bit files have: cameras of 10, 12 and 14 bits leave the upper ones empty."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from edgeopt.preprocessing import DEPTH, GREY_BITS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.types import Images

_LOOKED_AT = 16  # images that tell whether there are 16-bit ones among them
_DEPTHS = (8, 10, 12, 14)  # bits of cameras and sensors that write files of 16


def deduced_bits(splits: Sequence[tuple[Images, NDArray[np.int64]]], threads: int) -> int | None:
    """The bits that hold all values of all 16-bit images, where that is a depth of cameras; None where there is
    nothing to deduce.

    `splits` are images and the places of those that will be used. Where a few of them are no 16-bit images, the rest is
    not looked at. Images whose file tells its own depth do not count.
    """
    images, places = splits[0]
    spread = places[np.linspace(0, len(places) - 1, min(_LOOKED_AT, len(places))).astype(int)]
    if not any(_largest(images, int(place)) is not None for place in spread):
        return None
    every = [(each, int(place)) for each, chosen in splits for place in chosen]
    with ThreadPoolExecutor(threads) as pool:
        found = [most for most in pool.map(lambda one: _largest(*one), every) if most is not None]
    bits = max(found, default=0).bit_length()
    deduced = next((depth for depth in _DEPTHS if depth >= bits), GREY_BITS)
    return None if deduced == GREY_BITS else deduced


def _largest(images: Images, place: int) -> int | None:
    """The largest value of a 16-bit grey image that does not tell its depth; None of any other image."""
    try:
        image = images[place]
        if isinstance(image, Image.Image) and image.mode.startswith("I;16") and DEPTH not in image.info:
            return int(np.asarray(image).max(initial=0))
    except Exception:  # what cannot be read is named when it is read for good
        return None
    return None
