"""Generated images that a network learns in a minute: noisy stripes whose direction tells their kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeopt.options import Augmentation
from edgeopt.preprocessing import Preprocessing
from edgeopt.testing import ArraySplit
from edgeopt.types import TrainingData

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASSES = 4


def stripes(
    counts: tuple[int, int, int], image_size: int, *, edge: int = 64, turn: float = 0.05, colour_tells: bool = True
) -> TrainingData:
    """Splits of `counts` images for calibration, training and validation.

    `turn` is the standard deviation of the direction, in radians, of which a quarter of pi lies between two kinds: the
    larger, the fewer images can be told apart. The colour tells the kind too, or is any.
    """
    images, labels = _stripes(sum(counts), edge, turn, colour_tells)
    preprocessing = Preprocessing(image_size, resize=image_size, crop=image_size)

    def split(first: int, count: int) -> ArraySplit:
        chosen = slice(first, first + count)
        return ArraySplit(np.stack([preprocessing.pixels(image) for image in images[chosen]]), labels[chosen])

    calibration, train, validation = counts
    return TrainingData(
        tuple(f"stripes-{kind}" for kind in range(CLASSES)),
        preprocessing,
        split(calibration, train),
        split(0, calibration),
        split(calibration + train, validation),
        "stripes",
        Augmentation(),
    )


def _stripes(count: int, edge: int, turn: float, colour_tells: bool) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images, uint8 (count, edge, edge, 3), and their kinds."""
    random = np.random.default_rng(0)
    labels = random.permutation(np.arange(count) % CLASSES)
    y, x = np.mgrid[0:edge, 0:edge] / edge
    angle = np.pi * labels / CLASSES + random.normal(0, turn, count)
    frequency, phase = random.uniform(3, 6, count), random.uniform(0, 1, count)
    hue = 2 * np.pi * (labels / CLASSES if colour_tells else random.uniform(0, 1, count))
    colour = np.stack([0.6 + 0.4 * np.cos(hue - 2 * np.pi * channel / 3) for channel in range(3)], axis=1)
    images = np.empty((count, edge, edge, 3), np.uint8)
    for index in range(count):
        along = np.cos(angle[index]) * x + np.sin(angle[index]) * y
        wave = 0.5 + 0.5 * np.sin(2 * np.pi * (frequency[index] * along + phase[index]))
        image = 255 * (0.25 + 0.65 * wave[..., None] * colour[index])
        images[index] = np.clip(image + random.normal(0, 20, image.shape), 0, 255)
    return images, labels.astype(np.int64)
