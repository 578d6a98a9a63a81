"""Images of a batch made of two each, and by how much: mixup and CutMix, in plain torch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from edgeopt.options import Augmentation


def mixed_images(
    pixels: Tensor, augmentation: Augmentation, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Images, uint8 (n, channels, height, width), each with a part of another one: those, the place of the other, int64
    (n,), and the share that is still its own, float32 (n,). The input is left alone.

    A batch takes mixup or CutMix, whichever is asked for, one of the two by chance where both are. All randomness comes
    from `generator`, which lives on the device of `pixels`.

    Sources: H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018; S. Yun et al., "CutMix:
    Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019.
    """
    count, device = len(pixels), pixels.device
    partner = torch.randperm(count, generator=generator, device=device)
    chance = torch.rand((), generator=generator, device=device)
    blends = bool(augmentation.mixup) and (not augmentation.cutmix or bool(chance < 0.5))
    share = _beta(augmentation.mixup if blends else augmentation.cutmix, count, generator)
    if blends:
        own = share.view(-1, 1, 1, 1)
        mixed = pixels.float() * own + pixels[partner].float() * (1.0 - own)
        return mixed.round().clamp(0, 255).to(torch.uint8), partner, share
    inside = _rectangles(pixels.shape[-2], pixels.shape[-1], 1.0 - share, generator)
    mixed = torch.where(inside[:, None], pixels[partner], pixels)
    return mixed, partner, 1.0 - inside.float().mean(dim=(1, 2))


def _beta(alpha: float, count: int, generator: torch.Generator) -> Tensor:
    """Draws from Beta(alpha, alpha), float32 (count,)."""
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    drawn = np.random.default_rng(int(seed)).beta(alpha, alpha, count)
    return torch.from_numpy(drawn.astype(np.float32)).to(generator.device)


def _rectangles(height: int, width: int, areas: Tensor, generator: torch.Generator) -> Tensor:
    """Rectangles of such shares of the area around random places, cut at the border: bool (n, height, width)."""
    sides = areas.sqrt()
    inside = []
    for length in (height, width):
        middle = torch.rand(len(areas), generator=generator, device=areas.device) * length
        place = torch.arange(length, device=areas.device) + 0.5
        inside.append((place - middle[:, None]).abs() < sides[:, None] * length / 2)
    rows, columns = inside
    return rows[:, :, None] & columns[:, None, :]
