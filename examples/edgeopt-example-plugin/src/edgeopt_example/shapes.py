"""Draws the images of the data set `drawn-shapes`."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SHAPES = ("circle", "cross", "square", "triangle")
SIZE = 64  # px; the core resizes to the recipe's image_size

Point = tuple[float, float]


class Shapes:
    """Images in a fixed order, each drawn from its own index alone: reading them in any order gives the same."""

    def __init__(self, images_per_shape: int, noise: float, seed: int) -> None:
        self.labels: NDArray[np.int64] = np.tile(np.arange(len(SHAPES), dtype=np.int64), images_per_shape)
        self._noise = noise
        self._seed = seed

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Image `index`, uint8 (64, 64, 3)."""
        random = np.random.default_rng((self._seed, index))
        ground, shape = random.permutation([random.uniform(40, 110), random.uniform(150, 230)])
        image = Image.new("RGB", (SIZE, SIZE), _colour(random, ground))
        radius = random.uniform(0.22, 0.42) * SIZE
        center = (random.uniform(radius, SIZE - radius), random.uniform(radius, SIZE - radius))
        _draw(SHAPES[self.labels[index]], ImageDraw.Draw(image), center, radius, random, _colour(random, shape))
        noise = random.normal(0.0, 255.0 * self._noise / 2, (SIZE, SIZE, 3))
        return np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)


def _colour(random: np.random.Generator, brightness: float) -> tuple[int, int, int]:
    red, green, blue = np.clip(brightness + random.uniform(-25, 25, 3), 0, 255).astype(int).tolist()
    return red, green, blue


def _draw(
    shape: str,
    draw: ImageDraw.ImageDraw,
    center: Point,
    radius: float,
    random: np.random.Generator,
    fill: tuple[int, int, int],
) -> None:
    turn = random.uniform(0, 2 * math.pi)
    match shape:
        case "circle":
            draw.ellipse(
                [(center[0] - radius, center[1] - radius), (center[0] + radius, center[1] + radius)], fill=fill
            )
        case "square":
            draw.polygon(_corners(center, radius, 4, turn), fill=fill)
        case "triangle":
            draw.polygon(_corners(center, radius, 3, turn), fill=fill)
        case "cross":
            ends = _corners(center, radius, 4, turn)
            width = max(2, round(radius / 3))
            draw.line([ends[0], ends[2]], fill=fill, width=width)
            draw.line([ends[1], ends[3]], fill=fill, width=width)


def _corners(center: Point, radius: float, count: int, turn: float) -> list[Point]:
    """The corners of a regular polygon."""
    angles = [turn + 2 * math.pi * corner / count for corner in range(count)]
    return [(center[0] + radius * math.cos(angle), center[1] + radius * math.sin(angle)) for angle in angles]
