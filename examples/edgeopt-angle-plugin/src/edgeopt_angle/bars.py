"""Images of a bar, and its angle: drawn when they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE = 48  # px
_LENGTH, _WIDTH = 0.8, 0.16  # shares of the image's edge


class RotatedBars:
    """`count` images, uint8 (48, 48), each of a bar through its middle on a noisy ground."""

    def __init__(self, count: int, noise: float, seed: int) -> None:
        self.angles = np.random.default_rng(seed).uniform(0.0, 180.0, count)
        self._noise, self._seed = noise, seed

    def __len__(self) -> int:
        return len(self.angles)

    def __getitem__(self, index: int) -> Any:
        random = np.random.default_rng([self._seed, index])
        angle = np.radians(self.angles[index])
        middle = SIZE / 2 + random.uniform(-3, 3, 2)
        y, x = np.mgrid[:SIZE, :SIZE] + 0.5
        along = (x - middle[0]) * np.cos(angle) - (y - middle[1]) * np.sin(angle)  # y grows downwards
        across = (x - middle[0]) * np.sin(angle) + (y - middle[1]) * np.cos(angle)
        inside = (abs(along) < _LENGTH * SIZE / 2) & (abs(across) < _WIDTH * SIZE / 2)
        image: NDArray[np.float64] = 70 + 110 * inside + random.normal(0, 255 * self._noise, inside.shape)
        return image.clip(0, 255).astype(np.uint8)

    def target(self, index: int) -> float:
        """Degrees from 0 to 180, counterclockwise from the x axis: a bar has no front and no back."""
        return float(self.angles[index])
