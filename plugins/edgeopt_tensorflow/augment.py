"""Changes of training images in NumPy and Pillow: the same ones as `edgeopt.data.augment`, which needs PyTorch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from edgeopt.data.augment_constants import CROP_ASPECTS, ERASED_ASPECTS, ERASED_SHARES, LUMA
from edgeopt.plugins import Augmentation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.plugins import Pixels


def augment(pixels: Pixels, augmentation: Augmentation, random: np.random.Generator) -> Pixels:
    """Images, uint8 (n, height, width, channels), each changed in its own way; the input is left alone.

    Source of the erased rectangles: Z. Zhong et al., "Random Erasing Data Augmentation", AAAI 2020; of the scaled crop:
    C. Szegedy et al., "Going Deeper with Convolutions", CVPR 2015.
    """
    if augmentation == Augmentation():
        return pixels
    return np.stack([_changed(image, augmentation, random) for image in pixels]) if len(pixels) else pixels


def _changed(image: Pixels, wanted: Augmentation, random: np.random.Generator) -> Pixels:
    if wanted.horizontal_flip and random.random() < 0.5:
        image = image[:, ::-1]
    if wanted.crop_padding:
        image = _shifted(image, wanted.crop_padding, random)
    if wanted.rotation_degrees or wanted.crop_scale < 1.0:
        image = _moved(image, wanted, random)
    if wanted.brightness or wanted.contrast or wanted.saturation:
        image = _recoloured(image, wanted, random)
    if random.random() < wanted.erase:
        image = _erased(image, random)
    return image


def _shifted(image: Pixels, padding: int, random: np.random.Generator) -> Pixels:
    """Shifted by whole pixels, black where nothing was: a random crop of the padded image."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    top, left = random.integers(0, 2 * padding + 1, 2)
    return padded[top : top + height, left : left + width]


def _moved(image: Pixels, wanted: Augmentation, random: np.random.Generator) -> Pixels:
    """Rotated and cropped in one resampling; what comes in from outside is black."""
    tall, wide, channels = image.shape
    width = height = 1.0
    x = y = 0.0  # of the crop's middle, from -1 to 1
    if wanted.crop_scale < 1.0:
        area, aspect = random.uniform(wanted.crop_scale, 1.0), _log_uniform(CROP_ASPECTS, random)
        width, height = min(1.0, math.sqrt(area * aspect)), min(1.0, math.sqrt(area / aspect))
        x, y = random.uniform(width - 1, 1 - width), random.uniform(height - 1, 1 - height)
    most = math.radians(wanted.rotation_degrees)
    angle = random.uniform(-most, most)
    cosine, sine = math.cos(angle), math.sin(angle)
    # Pillow reads the result's pixel (column, row) at (a * column + b * row + c, d * column + e * row + f)
    a, b, d, e = width * cosine, -width * sine, height * sine, height * cosine
    across, down = wide / 2, tall / 2
    c, f = across * (1 + x) - (across * a + down * b), down * (1 + y) - (across * d + down * e)
    source = Image.fromarray(np.ascontiguousarray(image if channels > 1 else image[..., 0]))
    moved = source.transform((wide, tall), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR)
    return np.asarray(moved, dtype=np.uint8).reshape(image.shape)


def _recoloured(image: Pixels, wanted: Augmentation, random: np.random.Generator) -> Pixels:
    """Brightness, then contrast, then saturation, each by a factor around 1."""
    coloured = image.astype(np.float32)
    if wanted.brightness:
        coloured *= _factor(wanted.brightness, random)
    if wanted.contrast:
        middle = _grey(coloured).mean()
        coloured = middle + (coloured - middle) * _factor(wanted.contrast, random)
    if wanted.saturation:
        grey = _grey(coloured)
        coloured = grey + (coloured - grey) * _factor(wanted.saturation, random)
    return _rounded(coloured)


def _erased(image: Pixels, random: np.random.Generator) -> Pixels:
    """A rectangle of the image's mean colour."""
    tall, wide = image.shape[:2]
    share, aspect = random.uniform(*ERASED_SHARES), _log_uniform(ERASED_ASPECTS, random)
    edge = math.sqrt(tall * wide)
    width, height = (
        round(min(most, max(1.0, math.sqrt(share * ratio) * edge)))
        for most, ratio in ((wide, aspect), (tall, 1 / aspect))
    )
    left, top = random.integers(0, wide - width + 1), random.integers(0, tall - height + 1)
    erased = image.copy()
    erased[top : top + height, left : left + width] = _rounded(image.astype(np.float32).mean(axis=(0, 1)))
    return erased


def _log_uniform(bounds: tuple[float, float], random: np.random.Generator) -> float:
    low, high = bounds
    return math.exp(random.uniform(math.log(low), math.log(high)))


def _factor(share: float, random: np.random.Generator) -> np.float32:
    return np.float32(random.uniform(1.0 - share, 1.0 + share))


def _grey(image: NDArray[np.float32]) -> NDArray[np.float32]:
    if image.shape[-1] == 1:
        return image
    return (image @ np.array(LUMA, np.float32))[:, :, None]


def _rounded(values: NDArray[np.float32]) -> Pixels:
    return values.round().clip(0, 255).astype(np.uint8)
