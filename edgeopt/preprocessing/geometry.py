"""Where a place of an image lies in what a network sees of it, and the way back.

This module goes to devices as it is, with the others of its room and Pillow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # NumPy takes a tenth of a second
    import numpy as np
    from numpy.typing import NDArray

Fit = Literal["crop", "letterbox", "stretch"]
"""What becomes of an image whose sides have another ratio: its middle is kept, all of it is kept and what is missing is
filled, or its sides are scaled each by itself.
"""


@dataclass(frozen=True)
class Geometry:
    """How one image came into the frame of a network: it was resized as a whole, and moved.

    `original` is the image as it is seen, upright; `resized` all of it after resizing, and `network` the frame: each
    (height, width) in px. `offset` (x, y) is where the upper left corner of the resized image lies in the frame, in
    whole px: negative where something is cut off, positive where something is filled.

    Places are continuous: x runs from 0 at an image's left edge to its width at the right one, so the middle of its
    first px lies at 0.5. Annotations that count px begin half a px earlier.
    """

    original: tuple[int, int]
    resized: tuple[int, int]
    network: tuple[int, int]
    offset: tuple[int, int]

    @property
    def scale(self) -> tuple[float, float]:
        """By what x and y grow: a place of the original, times this, plus the offset, is one of the frame."""
        return self.resized[1] / self.original[1], self.resized[0] / self.original[0]

    def points_to_network(self, points: Any) -> NDArray[np.float64]:
        """Points (..., 2) of the original, (x, y), as places of the frame; those that were cut off lie outside it."""
        import numpy as np  # see above

        # multiplied first: the corners of an image come to lie exactly on those that they belong to
        scaled = np.asarray(points, dtype=np.float64) * _as_x_y(self.resized) / _as_x_y(self.original)
        moved: NDArray[np.float64] = scaled + self.offset
        return moved

    def points_to_original(self, points: Any) -> NDArray[np.float64]:
        """Points (..., 2) of the frame, (x, y), as places of the original."""
        import numpy as np  # see above

        inside = np.asarray(points, dtype=np.float64) - self.offset
        moved: NDArray[np.float64] = inside * _as_x_y(self.original) / _as_x_y(self.resized)
        return moved

    def boxes_to_network(self, boxes: Any, *, clipped: bool = False) -> NDArray[np.float64]:
        """Boxes (..., 4) of the original, (left, top, right, bottom), in the frame; `clipped` to it where asked for.

        A clipped box that was cut off whole is of no width or of no height.
        """
        return self._boxes(self.points_to_network(_corners(boxes)), self.network if clipped else None)

    def boxes_to_original(self, boxes: Any, *, clipped: bool = False) -> NDArray[np.float64]:
        """Boxes (..., 4) of the frame, (left, top, right, bottom), in the original; `clipped` to it where asked for."""
        return self._boxes(self.points_to_original(_corners(boxes)), self.original if clipped else None)

    @staticmethod
    def _boxes(corners: NDArray[np.float64], within: tuple[int, int] | None) -> NDArray[np.float64]:
        if within is not None:
            height, width = within
            corners = corners.clip(0.0, (width, height))
        return corners.reshape(*corners.shape[:-2], 4)


def geometry_of(height: int, width: int, fit: Fit, frame: tuple[int, int], network: tuple[int, int]) -> Geometry:
    """The geometry of an image of `height` × `width` px.

    It is resized, its ratio kept, until it covers `frame` (height, width) where the middle is kept, and until it fits
    into `network` where all of it is; the middle of either comes to lie in the middle of `network`.
    """
    if fit == "stretch":
        return Geometry((height, width), network, network, (0, 0))
    if fit == "letterbox":
        scale = min(network[0] / height, network[1] / width)
        tall, wide = (
            min(most, max(1, round(side * scale))) for side, most in zip((height, width), network, strict=True)
        )
        return Geometry((height, width), (tall, wide), network, ((network[1] - wide) // 2, (network[0] - tall) // 2))
    scale = max(frame[0] / height, frame[1] / width)
    tall, wide = (max(least, round(side * scale)) for side, least in zip((height, width), network, strict=True))
    return Geometry((height, width), (tall, wide), network, (-((wide - network[1]) // 2), -((tall - network[0]) // 2)))


def _as_x_y(size: tuple[int, int]) -> tuple[int, int]:
    return size[1], size[0]


def _corners(boxes: Any) -> NDArray[np.float64]:
    import numpy as np  # see above

    values = np.asarray(boxes, dtype=np.float64)
    return values.reshape(*values.shape[:-1], 2, 2)
