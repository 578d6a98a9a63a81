"""A module's weights: how they lie in memory, and copies of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def in_layout(module: nn.Module, layout: torch.memory_format) -> nn.Module:
    """The same module with its weights of four dimensions laid out so in memory."""
    return module.to(memory_format=layout)  # type: ignore[call-overload, no-any-return]


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the module's state, on the CPU."""
    return {
        name: value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value
        for name, value in module.state_dict().items()
    }
