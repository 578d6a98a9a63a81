"""Of which parts of which images augmentation has put images together, for targets that must go along."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch is heavy; whoever has a batch has imported it
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Tiles:
    """Images of a batch that are put together of tiles, each of which shows a rectangular part of an image of the same
    batch, made larger or smaller.

    `made`, int64 (m,), are the places of such images in the batch; all others stay as they are. Their k tiles cover
    them: of the images `sources`, int64 (m, k), the `parts` are shown at `places`, both int64 (m, k, 4), corners x1,
    y1, x2, y2 in px.
    """

    made: Tensor
    sources: Tensor
    parts: Tensor
    places: Tensor

    def images(self, pixels: Tensor) -> Tensor:
        """Images, uint8 (n, channels, height, width) in main memory, put together: resized bilinearly, and averaged
        where they become smaller.
        """
        from torch.nn.functional import interpolate

        return self._together(pixels, lambda part, size: interpolate(part, size, mode="bilinear", antialias=True))

    def masks(self, masks: Tensor) -> Tensor:
        """Masks, integer (n, height, width), put together: the nearest value."""
        from torch.nn.functional import interpolate

        def resized(part: Tensor, size: tuple[int, int]) -> Tensor:
            return interpolate(part.double(), size, mode="nearest-exact")  # which takes no int64

        return self._together(masks[:, None], resized)[:, 0]

    def points(self, points: Tensor) -> Tensor:
        """Points, float (n, j, 2), as they lie in each tile, (m, k, j, 2): some beyond its edges, out of sight."""
        parts, places = self.parts.to(points), self.places.to(points)
        scale = (places[..., 2:] - places[..., :2]) / (parts[..., 2:] - parts[..., :2])
        return (points[self.sources] - parts[..., None, :2]) * scale[..., None, :] + places[..., None, :2]

    def _together(self, images: Tensor, resized: Callable[[Tensor, tuple[int, int]], Tensor]) -> Tensor:
        # tile by tile: a tile is resized as bytes, many times faster than a batch is resampled as floats
        together = images.clone()
        every = (each.tolist() for each in (self.made, self.sources, self.parts, self.places))
        for image, sources, parts, places in zip(*every, strict=True):
            for source, part, (left, top, right, bottom) in zip(sources, parts, places, strict=True):
                shown = images[source : source + 1, :, part[1] : part[3], part[0] : part[2]]
                together[image, :, top:bottom, left:right] = resized(shown, (bottom - top, right - left))[0]
        return together
