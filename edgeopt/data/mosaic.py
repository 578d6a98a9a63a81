"""Of which images of a batch mosaics are made, and of what parts of them, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from edgeopt.tasks import Tiles

_MIDDLE = (0.25, 0.75)  # where the four meet, as shares of the sides


def drawn_tiles(count: int, height: int, width: int, share: float, generator: torch.Generator) -> Tiles:
    """Mosaics of four in place of a share of `count` images of one size in px, as many by chance as `share` says.

    The four meet at a point between a quarter and three quarters of either side. The upper left one is the image
    itself, the rest are others of the batch, each once as long as there are four images. Of each, a part is seen that
    keeps its ratio, at a scale between that at which the image just fills its place and 1, log-uniform, cut out
    anywhere. All randomness comes from `generator`.

    Source: A. Bochkovskiy, C.-Y. Wang and H.-Y. M. Liao, "YOLOv4: Optimal Speed and Accuracy of Object Detection",
    2020, arXiv:2004.10934, section 3.3; scale and middle are drawn otherwise here, so that nothing is black.
    """
    device = generator.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=device)

    made = (uniform(count) < share).nonzero().flatten()
    order = uniform(len(made), count)
    order[torch.arange(len(made), device=device), made] = -1.0  # the image itself comes first
    sources = order.argsort(dim=1).repeat(1, 4)[:, :4]

    frame = torch.tensor([width, height], dtype=torch.float32, device=device)
    low, high = _MIDDLE
    middle = (frame * (low + (high - low) * uniform(len(made), 2))).round()
    edges = torch.stack([torch.zeros_like(middle), middle, frame.expand_as(middle)], dim=1)
    column, row = torch.tensor([[0, 1, 0, 1], [0, 0, 1, 1]], device=device)
    first = torch.stack([edges[:, column, 0], edges[:, row, 1]], dim=2)
    sides = torch.stack([edges[:, column + 1, 0], edges[:, row + 1, 1]], dim=2) - first

    least = (sides / frame).amax(dim=2, keepdim=True)
    seen = torch.minimum((sides / least ** uniform(len(made), 4, 1)).round(), frame)
    begin = torch.minimum(((frame - seen + 1) * uniform(len(made), 4, 2)).floor(), frame - seen)
    parts, places = (torch.cat([at, at + size], dim=2).long() for at, size in ((begin, seen), (first, sides)))
    return Tiles(made, sources, parts, places)
