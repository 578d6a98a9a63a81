"""BatchNorm's running statistics: how fast they follow, and how they are collected anew.

Statistics that follow the training slowly are far from those of the final weights when the training is short; averaged
weights have none of their own. Then a model evaluates near chance although it has learned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def collecting(module: nn.Module) -> list[str]:
    """Names of the BatchNorm layers whose running statistics move when `module` runs now."""
    return [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, _BatchNorm) and layer.training and layer.running_mean is not None
    ]


@contextmanager
def momentum(module: nn.Module, value: float | None) -> Iterator[None]:
    """Within, all BatchNorm layers weight each batch by `value`; None changes nothing."""
    layers = [] if value is None else [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    before = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.momentum = value
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            layer.momentum = own


@torch.no_grad()
def reestimate(module: nn.Module, names: Sequence[str], inputs: Iterable[Tensor]) -> None:
    """Replaces the statistics of the BatchNorm layers `names` by their mean over `inputs`.

    Inputs are batches, float32 (n, channels, height, width). `module` must be in evaluation mode and is left in it, so
    that dropout does not disturb what is collected.
    """
    layers = [layer for name, layer in module.named_modules() if name in names and isinstance(layer, _BatchNorm)]
    before = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
        layer.training = True
    try:
        for batch in inputs:
            module(batch)
    finally:
        for layer, own in zip(layers, before, strict=True):
            layer.momentum = own
            layer.training = False
