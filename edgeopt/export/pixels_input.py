"""Input as the device has it: a program that takes a camera's pixels and normalizes them itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from edgeopt.arrays import InputKind
from edgeopt.networks.capture import export_program, fit_batch, require_same_function
from edgeopt.types import ModelState

if TYPE_CHECKING:
    from edgeopt.arrays import Pixels


INSIDE = "program."
"""Before the names of a program's layers, where one that takes pixels is around it."""


def take_pixels(state: ModelState, seed: int = 0) -> ModelState:
    """The state with a program that takes uint8 (batch, height, width, channels), so that no app can normalize
    otherwise. `seed` draws the images that it is checked with.

    Raises `FunctionChangedError` when its outputs differ from those of the given program on the same pixels, normalized
    outside.
    """
    plain = state.program.module(check_guards=False)
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (2, *state.preprocessing.shape), dtype=torch.uint8, generator=generator)
    normalizing = _TakesPixels(plain, *state.preprocessing.scale_and_offset())
    program = export_program(normalizing, pixels, state.batch_range)
    require_same_function(
        lambda given: plain(_as_inside(torch.from_numpy(state.preprocessing.normalize(_array(given))))),
        program.module(check_guards=False),
        fit_batch(pixels, state.batch_range),
        "normalizing inside the program",
    )
    return replace(state, model=program, input_kind=InputKind.UINT8_NHWC)


class _TakesPixels(nn.Module):
    """`Preprocessing.normalize` as layers, in the same order of arithmetic, before a program."""

    scale: Tensor
    offset: Tensor

    def __init__(self, program: nn.Module, scale: Sequence[float], offset: Sequence[float]) -> None:
        super().__init__()
        self.program = program
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("offset", torch.tensor(offset))

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The program's outputs for uint8 pixels (batch, height, width, channels)."""
        values = pixels.to(torch.float32) * self.scale + self.offset
        outputs: Tensor | tuple[Tensor, ...] = self.program(values.permute(0, 3, 1, 2))
        return outputs


def _as_inside(images: Tensor) -> Tensor:
    """Images with their values in the order of memory that they have inside: channels last, as pixels come.

    In another order kernels add up sums in another order. Where a sum lies between two steps of an int8 program, that
    alone would change an integer.
    """
    return images.contiguous(memory_format=torch.channels_last)


def _array(pixels: Tensor) -> Pixels:
    array: Pixels = pixels.numpy()
    return array
