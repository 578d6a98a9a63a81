"""Generated images with masks: a few shapes on textured ground, so that a network can be tried anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.plugins import RawDataset

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASSES = ("ground", "disc", "square", "triangle", "ring")
_MOST = 4  # shapes on an image
_RADIUS = (0.12, 0.28)  # of a shape, as a share of the image's edge
_NOISE = 0.04


@dataclass(frozen=True, eq=False)
class DrawnMasks:
    """Images, uint8 (n, edge, edge, 3), and their masks, uint8 (n, edge, edge)."""

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        return self.images[index]

    def target(self, index: int) -> NDArray[np.uint8]:
        """The mask of an image."""
        mask: NDArray[np.uint8] = self.masks[index]
        return mask


def make_shapes(images: int, edge: int, seed: int) -> RawDataset:
    """Images of one to four shapes, the later ones over the earlier, all from the seed."""
    pixels = np.empty((images, edge, edge, 3), np.uint8)
    masks = np.zeros((images, edge, edge), np.uint8)
    for index in range(images):
        _draw(pixels[index], masks[index], np.random.default_rng([seed, index]))
    return RawDataset(CLASSES, {"train": DrawnMasks(pixels, masks)})


def _draw(pixels: NDArray[np.uint8], mask: NDArray[np.uint8], random: np.random.Generator) -> None:
    edge = len(mask)
    y, x = (np.mgrid[:edge, :edge] + 0.5) / edge
    values = _surface(x, y, random)
    for _ in range(random.integers(1, _MOST + 1)):
        kind = int(random.integers(1, len(CLASSES)))
        radius, turn = random.uniform(*_RADIUS), random.uniform(0, 2 * np.pi)
        across, down = x - random.uniform(0.15, 0.85), y - random.uniform(0.15, 0.85)
        u = (across * np.cos(turn) + down * np.sin(turn)) / radius
        v = (down * np.cos(turn) - across * np.sin(turn)) / radius
        inside = _inside(kind, u, v)
        mask[inside] = kind
        values[inside] = _surface(u, v, random)[inside]
    values += random.normal(0.0, _NOISE, values.shape)
    pixels[:] = np.rint(255 * values.clip(0.0, 1.0))


def _inside(kind: int, u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which places lie within a shape of radius 1."""
    far = u * u + v * v
    found: NDArray[np.bool_]
    match CLASSES[kind]:
        case "disc":
            found = far < 1.0
        case "square":
            found = np.maximum(abs(u), abs(v)) < 0.8
        case "triangle":
            found = np.maximum(abs(u) * 0.866 + v * 0.5, -v) < 0.55
        case _:
            found = (far < 1.0) & (far > 0.3)
    return found


def _surface(u: NDArray[np.float64], v: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """A colour with stripes of another, float (height, width, 3)."""
    first, second = random.uniform(0.0, 1.0, (2, 3))
    turn, often = random.uniform(0, np.pi), random.uniform(2.0, 8.0)
    wave = 0.2 * (1 + np.sin(2 * np.pi * often * (u * np.cos(turn) + v * np.sin(turn))))
    surface: NDArray[np.float64] = first + wave[..., None] * (second - first)
    return surface
