"""What a program costs, counted against arithmetic by hand."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from edgeopt.networks.capture import to_program
from edgeopt.networks.cost import cost_of_program
from edgeopt.testing import tiny_data
from edgeopt.testing.values import tiny_int8_program, tiny_model, tiny_program


class Layers(nn.Module):
    """A convolution with a step, one of groups, a transposed one, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.larger = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.last = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.larger(self.depthwise(self.norm(self.first(x)).relu()))
        return self.last(x.mean((2, 3)))


BY_HAND = 16 * 16 * 8 * 27 + 16 * 16 * 8 * 9 + 16 * 16 * 8 * 4 * 4 + 4 * 3
"""Of an image of 32 px: outputs times inputs of each, for the transposed layer inputs times outputs of each."""


def test_operations_are_those_counted_by_hand() -> None:
    data = tiny_data()
    program = to_program(replace(tiny_model(data), model=Layers().eval()), data.validation)
    cost = cost_of_program(program)
    assert cost.macs == BY_HAND
    parameters = 8 * 27 + 8 + 16 + 8 * 9 + 8 * 4 * 4 + 4 + 4 * 3 + 3
    assert cost.parameters == parameters


def test_a_program_for_one_image_and_one_in_integers_cost_the_same() -> None:
    program = cost_of_program(tiny_program())
    assert program.macs > 0
    assert cost_of_program(tiny_program(largest_batch=1)) == program
    assert cost_of_program(tiny_int8_program()).macs == program.macs
