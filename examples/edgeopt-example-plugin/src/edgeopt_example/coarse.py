"""The work of the pass `coarse-weights`."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from edgeopt.plugins import ModelState, NothingChangedError, PassRecord


def coarsen_weights(state: ModelState, values: int) -> ModelState:
    """Rounds the weights of convolutions and linear layers to `values` values, evenly spaced for each output channel.

    The file does not get smaller by it, as weights stay float32; it shows what few values cost before one quantizes.

    Raises `NothingChangedError` when no weight moved.
    """
    model = copy.deepcopy(state.model)  # a pass leaves its input alone
    changed = total = layers = 0
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                rounded = round_to_grid(module.weight, values)
                changed += int((rounded != module.weight).sum())
                total += rounded.numel()
                layers += 1
                module.weight.copy_(rounded)
    if not changed:
        raise NothingChangedError(
            f"no weight changed when all were rounded to {values} values",
            hint="make `values` smaller, or leave this pass out",
        )
    facts = {"changed_weights": changed, "weights": total, "layers": layers}
    return state.after(PassRecord("coarse-weights", facts), model)


def round_to_grid(weight: Tensor, values: int) -> Tensor:
    """`weight`, float (channels, ...), with each channel on `values` points between its largest
    magnitude's two signs.
    """
    largest = weight.abs().flatten(1).amax(dim=1).clamp(min=torch.finfo(weight.dtype).tiny)
    step = (2 * largest / (values - 1)).reshape(-1, *[1] * (weight.dim() - 1))
    return (weight / step).round() * step
