"""BatchNorm's statistics: of which images, how fast the running ones follow, and how they are collected anew.

Statistics that follow the training slowly are far from those of the final weights when the training is short; averaged
weights have none of their own. Then a model evaluates near chance although it has learned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgeopt_lightning.fit.devices import sum_over_devices

_FORWARD = "forward"  # of a layer itself, before that of its class


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


@contextmanager
def over_devices(module: nn.Module, devices: int) -> Iterator[None]:
    """Within, all BatchNorm layers normalize with the statistics of the whole batch, of which each of several devices
    has a part: so a training ends alike, on however many devices. torch's own `SyncBatchNorm` does it on GPUs alone.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)] if devices > 1 else []
    try:
        for layer in layers:
            vars(layer)[_FORWARD] = partial(_normalized, layer)
        yield
    finally:
        for layer in layers:
            vars(layer).pop(_FORWARD)


def _normalized(layer: _BatchNorm, input: Tensor) -> Tensor:
    """What `layer` makes of this device's part of a batch, float (n, channels, …)."""
    if not layer.training:
        answer: Tensor = type(layer).forward(layer, input)
        return answer
    axes = [axis for axis in range(input.dim()) if axis != 1]
    shape = [-1 if axis == 1 else 1 for axis in range(input.dim())]
    part = input.float().sum(axes)
    places = part.new_tensor([input.numel() / input.shape[1]])
    *total, count = sum_over_devices(torch.cat([part, places]))
    mean = torch.stack(total) / count
    away = input.float() - mean.view(shape)
    variance = sum_over_devices(away.square().sum(axes)) / count
    if layer.running_mean is not None and layer.running_var is not None:
        _follow(layer, mean.detach(), variance.detach() * (count / (count - 1)))
    normalized: Tensor = away * torch.rsqrt(variance + layer.eps).view(shape)
    if layer.affine:
        normalized = normalized * layer.weight.view(shape) + layer.bias.view(shape)
    return normalized.to(input.dtype)


@torch.no_grad()
def _follow(layer: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Moves the running statistics as torch does; without a momentum they are the mean over all batches."""
    assert layer.running_mean is not None  # the caller asked
    assert layer.running_var is not None
    share = layer.momentum
    if layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
        share = 1 / float(layer.num_batches_tracked) if share is None else share
    layer.running_mean.lerp_(mean.to(layer.running_mean.dtype), share or 0.0)
    layer.running_var.lerp_(variance.to(layer.running_var.dtype), share or 0.0)


@torch.no_grad()
def reestimate(module: nn.Module, names: Sequence[str], inputs: Iterable[Tensor]) -> None:
    """Replaces the statistics of the BatchNorm layers `names` by their mean over `inputs`.

    Inputs are batches, float32 (n, channels, height, width), the same on all devices. `module` must be in evaluation
    mode and is left in it, so that dropout does not disturb what is collected.
    """
    layers = [layer for name, layer in module.named_modules() if name in names and isinstance(layer, _BatchNorm)]
    before = [layer.momentum for layer in layers]
    shared = [vars(layer).pop(_FORWARD, None) for layer in layers]  # every device collects for itself
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
        layer.training = True
    try:
        for batch in inputs:
            module(batch)
    finally:
        for layer, own, forward in zip(layers, before, shared, strict=True):
            layer.momentum = own
            layer.training = False
            if forward is not None:
                vars(layer)[_FORWARD] = forward
