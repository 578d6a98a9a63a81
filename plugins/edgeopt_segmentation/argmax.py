"""From logits to classes, as the last layer of a file."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ClassOfEachPlace(nn.Module):
    """Takes logits (n, classes, height, width), gives classes, uint8 (n, height, width): of equals the first."""

    def forward(self, logits: Tensor) -> Tensor:
        return logits.argmax(dim=1).to(torch.uint8)
