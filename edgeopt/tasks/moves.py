"""Where augmentation has moved the places of training images, for targets that must go along."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch is heavy; whoever has a batch has imported it
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Moves:
    """For each image of a batch, the affine map from places before augmentation to places after it.

    `matrices` are float32 (n, 2, 3), for columns (x, y, 1) in px from the image's upper left corner, x to the right, y
    down; a pixel's middle lies at +0.5. `height` and `width` are those of the images, before and after, in px.
    """

    matrices: Tensor
    height: int
    width: int

    def points(self, points: Tensor) -> Tensor:
        """Points, float (n, k, 2), of each image after the move."""
        return points @ self.matrices[:, :, :2].transpose(1, 2).to(points) + self.matrices[:, None, :, 2].to(points)

    def directions(self, directions: Tensor) -> Tensor:
        """Directions, float (n, k, 2), of each image after the move: turned, mirrored and stretched, not shifted."""
        return directions @ self.matrices[:, :, :2].transpose(1, 2).to(directions)

    def masks(self, masks: Tensor, outside: int) -> Tensor:
        """Masks, integer (n, height, width), after the move: the nearest value, and `outside` where nothing was."""
        import torch
        from torch.nn.functional import affine_grid, grid_sample

        # grid_sample asks for each place of the result where it is read, in -1..1
        count = len(self.matrices)
        whole = torch.zeros(count, 3, 3, device=self.matrices.device)
        whole[:, :2], whole[:, 2, 2] = self.matrices, 1.0
        back = torch.linalg.inv(whole)[:, :2]
        scale = torch.tensor([self.width / 2, self.height / 2], device=back.device)
        linear = back[:, :, :2] * scale[None, None, :] / scale[None, :, None]
        middle = back[:, :, :2] @ scale + back[:, :, 2]
        theta = torch.cat([linear, (middle / scale - 1.0)[:, :, None]], dim=2)
        grid = affine_grid(theta, [count, 1, self.height, self.width], align_corners=False)
        shifted = masks[:, None].double() - outside  # so that zeros, which come in from outside, mean `outside`
        moved = grid_sample(shifted, grid.double(), mode="nearest", padding_mode="zeros", align_corners=False)
        return (moved[:, 0].round() + outside).to(masks.dtype)
