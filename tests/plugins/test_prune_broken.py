"""Which groups of channels cannot go: those that a network's code relies on, and none for want of memory or by a bug."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgeopt_pruning.structured.channels import broken_without
from edgeopt_pruning.structured.groups import Dependencies

EXAMPLE = torch.zeros(1, 3, 8, 8)
REMOVAL = {"first": (0, 1), "second": (3,)}


class Relies(nn.Module):
    """Its code knows how many channels the second convolution has."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.second(self.first(images))
        self.check(x)
        return self.head(x.mean((2, 3)))

    def check(self, x: torch.Tensor) -> None:
        if x.shape[1] != 8:
            raise KeyError("eight channels, please")


class Full(Relies):
    def check(self, x: torch.Tensor) -> None:
        if x.shape[1] != 8:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


def test_what_a_network_relies_on_is_named() -> None:
    assert broken_without(Relies(), EXAMPLE, REMOVAL) == {"second"}


def test_want_of_memory_shrinks_no_search() -> None:
    with pytest.raises(RuntimeError, match="allocate memory"):
        broken_without(Full(), EXAMPLE, REMOVAL)


def test_a_bug_shrinks_no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    def remove(self: Dependencies, removal: object) -> None:
        raise TypeError("a bug")

    monkeypatch.setattr(Dependencies, "remove", remove)
    with pytest.raises(TypeError, match="a bug"):
        broken_without(Relies(), EXAMPLE, REMOVAL)
