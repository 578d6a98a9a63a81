"""What a captured program costs for one image, counted: multiply-accumulate operations and parameters."""

from __future__ import annotations

from dataclasses import dataclass

from edgeopt.types import ModelState


@dataclass(frozen=True)
class ProgramCost:
    """Multiply-accumulate operations for one image, and the numbers that were trained."""

    macs: int
    parameters: int


def cost_of_program(state: ModelState) -> ProgramCost:
    """Counts while a program of PyTorch answers once.

    Operations are those of convolutions and matrix products, as torch counts them
    (https://pytorch.org/docs/stable/utils.html), in integers or in floats: sums, activations and normalization are not
    among them, nor in what other tools call MACs. Zeros count like other weights, for a runtime multiplies them too.
    """
    import torch  # heavy: whoever has a program has imported it already
    from torch.utils.flop_counter import FlopCounterMode  # imports torch.distributed's parts, only needed here

    images = state.batch_range[0]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        state.program.module()(torch.zeros(images, *state.input_shape))
    parameters = sum(parameter.numel() for parameter in state.program.parameters())
    return ProgramCost(macs=counter.get_total_flops() // 2 // images, parameters=parameters)
