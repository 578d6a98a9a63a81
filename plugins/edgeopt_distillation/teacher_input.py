"""Inputs of a teacher that was trained with another mean and standard deviation than the student."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from edgeopt.plugins import Preprocessing

Channels = tuple[float, ...]


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of each channel, of pixels scaled to 0..1."""

    mean: Channels
    std: Channels


def normalization_of(mean: Channels | None, std: Channels | None) -> Normalization | None:
    """The normalization of both options, None where they are left out."""
    return None if mean is None or std is None else Normalization(mean, std)


def convert_inputs(module: nn.Module, trained: Normalization, data: Preprocessing) -> str:
    """From now on `module` takes images normalized as `data` says, though it was trained with another normalization.

    Both are affine in the pixel, so one multiplication and one addition for each channel lead from one to the other;
    they run before the module's own `forward`. Returns what was converted, in words; nothing is done, and the text is
    empty, where both normalizations are the same.
    """
    if (tuple(trained.mean), tuple(trained.std)) == (tuple(data.mean), tuple(data.std)):
        return ""
    here = [torch.tensor(values, dtype=torch.float32).reshape(1, -1, 1, 1) for values in (data.mean, data.std)]
    there = [torch.tensor(values, dtype=torch.float32).reshape(1, -1, 1, 1) for values in (trained.mean, trained.std)]
    factor, offset = here[1] / there[1], (here[0] - there[0]) / there[1]

    def convert(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        images, *rest = inputs
        return (images * factor.to(images) + offset.to(images), *rest)

    module.register_forward_pre_hook(convert)
    return f"converted to mean {_shown(trained.mean)}, std {_shown(trained.std)}"


def _shown(values: Channels) -> str:
    return ", ".join(f"{value:g}" for value in values)
