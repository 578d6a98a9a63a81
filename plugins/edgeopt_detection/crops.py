"""Random parts of training images that keep boxes in sight."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from edgeopt_detection.targets import LEAST_SEEN

_OVERLAPS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)  # least IoU of a part and a box in it; the last is the whole image
_TRIALS = 40  # parts that are looked at for each of them
_SIDES = (0.3, 1.0)  # of a part, as shares of the image's
_ASPECTS = (0.5, 2.0)


def crops_around(batch: Mapping[str, Tensor], height: int, width: int, generator: torch.Generator) -> Tensor:
    """A part of each image of a batch, corners x1, y1, x2, y2 in px, float32 (n, 4).

    The least overlaps 0, 0.1, 0.3, 0.5, 0.7 and 0.9 and the whole image are gone through in random order; for each, 40
    parts are drawn, with sides of 0.3 to 1 of the image's, at most twice as long as each other. The first part is taken
    that has this overlap (IoU) with a box of which a quarter or more lies in it, so that it stays. An image without
    boxes stays whole.

    Source: W. Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016, arXiv:1512.02325, section 2.2, as
    torchvision's `RandomIoUCrop` draws it.
    """
    count, most = len(batch["corners"]), len(_OVERLAPS) * _TRIALS
    draw = torch.rand(count, most, 4, generator=generator, device=generator.device)
    order = torch.rand(count, len(_OVERLAPS), generator=generator, device=generator.device).argsort(dim=1)
    least = torch.tensor(_OVERLAPS, device=generator.device)[order].repeat_interleave(_TRIALS, dim=1)
    frame = torch.tensor([width, height], dtype=torch.float32, device=generator.device)
    sides = frame * (_SIDES[0] + (_SIDES[1] - _SIDES[0]) * draw[..., :2])
    first = (frame - sides) * draw[..., 2:]
    parts = torch.cat([first, first + sides], dim=2)
    aspect = sides[..., 0] / sides[..., 1]
    overlaps, seen = _overlaps(parts, batch["corners"])
    if "seen" in batch:  # of boxes in mosaics, the share that is left
        seen = seen * batch["seen"][:, None]
    stays = (seen >= LEAST_SEEN) & (batch["classes"] >= 0)[:, None]
    fits = (stays & (overlaps >= least[..., None])).any(dim=2) & (aspect >= _ASPECTS[0]) & (aspect <= _ASPECTS[1])
    whole = least == 1.0
    chosen = (fits | whole).to(torch.uint8).argmax(dim=1)
    rows = torch.arange(count, device=generator.device)
    entire = torch.cat([torch.zeros_like(frame), frame])
    return torch.where(whole[rows, chosen][:, None], entire, parts[rows, chosen])


def _overlaps(parts: Tensor, corners: Tensor) -> tuple[Tensor, Tensor]:
    """IoU of each part, (n, p, 4), with each box, (n, k, 4), of its image, and the share of the box that lies in it;
    (n, p, k). Zero for boxes without area.
    """
    one, other = parts[:, :, None], corners[:, None]
    sides = torch.minimum(one[..., 2:], other[..., 2:]) - torch.maximum(one[..., :2], other[..., :2])
    common = sides.clamp(min=0).prod(dim=3)
    areas = [(each[..., 2:] - each[..., :2]).prod(dim=3) for each in (one, other)]
    return common / (areas[0] + areas[1] - common), common / areas[1].clamp(min=1e-6)
