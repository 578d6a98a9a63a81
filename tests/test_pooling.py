"""Adaptive maxima become plain ones where that is the same, and stay where it is not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeopt.networks.capture import export_program

aten = torch.ops.aten


class Maxima(nn.Module):
    def __init__(self, size: int | tuple[int, int], where: bool = False) -> None:
        super().__init__()
        self.size = size
        self.where = where

    def forward(self, images: Tensor) -> Tensor:
        values, indices = functional.adaptive_max_pool2d(images, self.size, return_indices=True)
        return values.flatten(1) + indices.flatten(1) if self.where else values.flatten(1)


@pytest.mark.parametrize(
    ("module", "plain"),
    [(Maxima(1), True), (Maxima((2, 3)), True), (Maxima(5), False), (Maxima(1, where=True), False)],
)
def test_adaptive_maxima(module: nn.Module, plain: bool) -> None:
    images = torch.randn(2, 3, 12, 6, generator=torch.Generator().manual_seed(0))
    program = export_program(module.eval(), images, (1, 8))
    targets = {node.target for node in program.graph.nodes}
    assert (aten.max_pool2d.default in targets, aten.adaptive_max_pool2d.default in targets) == (plain, not plain)
    torch.testing.assert_close(program.module()(images), module(images), rtol=0, atol=0)
