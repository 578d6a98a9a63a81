"""From raw heads to boxes and scores, as layers before TFLite's operator."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeopt_detection.decoding.description import BoxDecoding
from edgeopt_detection.decoding.reference import anchor_corners

_NOTHING = -200.0  # the logarithm of a side of 0: its exponential is none that 32 bits tell from 0


class PlacedBoxes(nn.Module):
    """Takes raw heads, gives boxes (n, anchors, 4) and scores (n, anchors, classes).

    A box is y and x of its middle and the logarithms of height and width, in shares of the input: what the operator
    makes of an anchor of this middle 0 and these sides 1. So whatever the description says of boxes is done here, the
    cut at the borders included, which the operator does not know.
    """

    middles: Tensor
    sizes: Tensor
    weights: Tensor

    def __init__(self, decoding: BoxDecoding) -> None:
        super().__init__()
        corners = torch.from_numpy(anchor_corners(decoding)) / torch.tensor([decoding.width, decoding.height] * 2)
        self.register_buffer("middles", ((corners[:, :2] + corners[:, 2:]) / 2).float())
        self.register_buffer("sizes", (corners[:, 2:] - corners[:, :2]).float())
        self.register_buffer("weights", torch.tensor(decoding.weights))
        self.is_moved = decoding.boxes == "offsets"
        self.scale_limit = decoding.scale_limit
        self.how, self.background = decoding.scores, decoding.background

    def forward(self, logits: Tensor, boxes: Tensor, centerness: Tensor | None = None) -> tuple[Tensor, Tensor]:
        low, high = (each.clamp(0.0, 1.0) for each in self._corners(boxes))
        middle, side = (low + high) * 0.5, (high - low).clamp(min=0.0).log().clamp(min=_NOTHING)
        placed = torch.cat([middle[..., 1:], middle[..., :1], side[..., 1:], side[..., :1]], dim=-1)
        return placed, self._scores(logits, centerness)

    def _corners(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        if not self.is_moved:
            return self.middles - boxes[..., :2] * self.sizes, self.middles + boxes[..., 2:] * self.sizes
        moved = boxes / self.weights
        middles = moved[..., :2] * self.sizes + self.middles
        halves = moved[..., 2:].clamp(max=self.scale_limit).exp() * self.sizes * 0.5
        return middles - halves, middles + halves

    def _scores(self, logits: Tensor, centerness: Tensor | None) -> Tensor:
        if self.background is not None:
            shares = logits.softmax(dim=-1)
            return torch.cat([shares[..., : self.background], shares[..., self.background + 1 :]], dim=-1)
        scores = logits.sigmoid()
        return scores if centerness is None else (scores * centerness.sigmoid()).sqrt()
