"""A small U-Net."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


class UNet(nn.Module):
    """A U-Net with BatchNorm: `depth` levels down and up, each joined with what was there before. The first level has
    `width` channels, each one below twice as many.

    Source: O. Ronneberger, P. Fischer and T. Brox, "U-Net", MICCAI 2015, arXiv:1505.04597, which has four levels below
    a first one of 64; with padding, BatchNorm and bilinear upsampling, which XNNPACK computes as well: nearest values
    stay outside of it.
    """

    def __init__(self, channels: int, classes: int, width: int, depth: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.multiple = 2**depth
        self.first = _two(channels, width)
        self.pool = nn.MaxPool2d(2)
        self.down = nn.ModuleList(_two(before, after) for before, after in pairwise(widths))
        self.enlarge = nn.Upsample(scale_factor=2, mode="bilinear")
        self.up = nn.ModuleList(
            _two(below + here, here) for below, here in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float32 (n, classes, height, width), of images whose sides are multiples of 2 ** depth px.

        Raises `ValueError` for other sides.
        """
        height, width = images.shape[-2:]
        if height % self.multiple or width % self.multiple:
            raise ValueError(
                f"a U-Net of this depth takes sides that are multiples of {self.multiple} px, not {height} × {width} px"
            )
        values = self.first(images)
        kept = []
        for level in self.down:
            kept.append(values)
            values = level(self.pool(values))
        for level, beside in zip(self.up, reversed(kept), strict=True):
            values = level(torch.cat([self.enlarge(values), beside], dim=1))
        logits: Tensor = self.head(values)
        return logits


def _two(inputs: int, outputs: int) -> nn.Sequential:
    def one(before: int) -> tuple[nn.Module, ...]:
        return nn.Conv2d(before, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)

    return nn.Sequential(*one(inputs), *one(outputs))
