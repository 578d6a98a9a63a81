"""Small networks with what makes it hard to start in the middle: branches, writes in place, views, shared weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeopt.networks.capture import capture
from edgeopt.sensitivity.network import Network

CLASSES = 5


def network_of(module: nn.Module, size: int = 8) -> Network:
    return Network(capture(module.eval(), torch.zeros(2, 3, size, size), (1, 64)))


def images(count: int, size: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


class Block(nn.Module):
    """A convolution with one of several things around it."""

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.kind = kind
        groups = width if kind == "depthwise" else 1
        layer = nn.ConvTranspose2d if kind == "transposed" else nn.Conv2d
        self.conv = layer(width, width, 3, padding=1, groups=groups, bias=kind == "plain")
        self.norm = nn.BatchNorm2d(width)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, features: Tensor) -> Tensor:
        new = self.norm(self.conv(features))
        match self.kind:
            case "residual":
                new += features
                return functional.relu_(new)
            case "read-before-write":
                gate = new.mean(dim=(2, 3), keepdim=True)
                return functional.hardswish(new, inplace=True) * gate
            case "joined":
                return torch.cat([new[:, :1], functional.relu(features[:, 1:], inplace=False)], dim=1)
            case "written-through-a-view":
                new.flatten(2).mul_(0.5)
                return new + features
        return functional.relu(new, inplace=True)


KINDS = ("plain", "depthwise", "transposed", "residual", "read-before-write", "joined", "written-through-a-view")


class BlockNet(nn.Module):
    """Blocks one after the other, some of them the same module twice."""

    def __init__(self, kinds: list[str], width: int = 4, repeated: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList([Block(kind, width) for kind in kinds])
        self.repeated = repeated
        self.head = nn.Linear(width * 16, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)
        for block in self.blocks:
            features = block(features)
        if self.repeated:
            features = self.blocks[0](features)
        return self.head(features.flatten(1))
