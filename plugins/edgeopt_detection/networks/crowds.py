"""Anchors in crowd regions, from which nothing is learnt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_WITHIN = 0.5  # of an anchor's area, in one region: what it sees is the crowd
_CERTAIN = 30.0  # a logit of which no loss is left in 32 bits, whatever the loss


def without_crowds(
    logits: Tensor, crowds: Sequence[Tensor], anchors: Tensor, learnt: Sequence[Tensor], background: int | None
) -> Tensor:
    """Class logits (n, anchors, columns) in which anchors that lie in a crowd region are sure that nothing is there, so
    that neither a loss nor a gradient comes of them; the others, and those that an object is `learnt` at, stay.

    `crowds` are the regions' corners (k, 4) of each image and `anchors` those of all anchors, (anchors, 4), in px;
    `learnt` is bool (anchors,) for each image.
    """
    if not any(len(each) for each in crowds):
        return logits
    nothing = torch.full((logits.shape[-1],), -_CERTAIN, dtype=logits.dtype, device=logits.device)
    if background is not None:
        nothing[background] = _CERTAIN
    quiet = torch.stack([_within(anchors, regions) & ~own for regions, own in zip(crowds, learnt, strict=True)])
    return torch.where(quiet[..., None], nothing, logits)


def hold_a_middle(anchors: Tensor, corners: Tensor) -> Tensor:
    """Whether the middle of each anchor, (anchors, 4), lies in some box of corners (k, 4); bool (anchors,)."""
    middles = (anchors[:, None, :2] + anchors[:, None, 2:]) / 2
    inside = (middles >= corners[None, :, :2]) & (middles <= corners[None, :, 2:])
    return inside.all(dim=2).any(dim=1)


def _within(anchors: Tensor, regions: Tensor) -> Tensor:
    """Whether half of each anchor's area or more lies in one of the regions."""
    one, other = anchors[:, None], regions[None]
    sides = torch.minimum(one[..., 2:], other[..., 2:]) - torch.maximum(one[..., :2], other[..., :2])
    areas = (anchors[:, 2:] - anchors[:, :2]).prod(dim=1)
    return (sides.clamp(min=0).prod(dim=2) >= _WITHIN * areas[:, None]).any(dim=1)
