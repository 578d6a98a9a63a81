"""What the devices of one training tell each other. Alone, a device tells itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn


def place() -> tuple[int, int]:
    """Number of this device, and of how many."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def largest_over_devices(values: Tensor) -> Tensor:
    """Elementwise maximum over the devices, which all hold a tensor of the same shape."""
    if place()[1] > 1:
        distributed.all_reduce(values, distributed.ReduceOp.MAX)
    return values


def range_over_devices(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Elementwise minimum of `low` and maximum of `high` over the devices, which all hold tensors of the same shape."""
    if place()[1] == 1:
        return low, high
    negative, positive = largest_over_devices(torch.stack([-low, high]))
    return -negative, positive


def sum_over_devices(values: Tensor) -> Tensor:
    """Elementwise sum over the devices, through which gradients flow back to all of them."""
    summed: Tensor = _SumOverDevices.apply(values)  # type: ignore[no-untyped-call]  # torch gives it no types
    return summed


class _SumOverDevices(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ARG004 - nothing is to be remembered
        summed = values.contiguous().clone()
        distributed.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        summed = gradient.contiguous().clone()
        distributed.all_reduce(summed)
        return summed


def mean_over_devices(values: Tensor) -> float:
    """Mean over all values of all devices, which hold the same number of them."""
    mean = values.float().mean()
    _, devices = place()
    if devices > 1:
        distributed.all_reduce(mean)
    return float(mean) / devices


@torch.no_grad()
def share_buffers(module: nn.Module) -> None:
    """Gives every device the first one's buffers, such as BatchNorm's statistics, which each collects on its own."""
    if place()[1] > 1:
        for buffer in module.buffers():
            shared = buffer.detach().contiguous()
            distributed.broadcast(shared, src=0)
            buffer.copy_(shared)


def share_of_device(count: int) -> NDArray[np.int64]:
    """Which of `count` rows this device computes, as many as every other: the last row may be computed twice."""
    number, devices = place()
    each = -(-count // devices)
    return np.minimum(np.arange(number * each, (number + 1) * each), count - 1)


def gather_rows(parts: Sequence[Tensor], indices: NDArray[np.int64], count: int) -> Tensor:
    """All `count` rows on every device, from what each computed for the rows `indices`."""
    mine = torch.cat(list(parts))
    _, devices = place()
    if devices == 1:
        return mine
    gathered: list[Any] = [None] * devices
    distributed.all_gather_object(gathered, (indices, mine))
    rows = torch.empty((count, *mine.shape[1:]), dtype=mine.dtype)
    for chosen, values in gathered:
        rows[torch.from_numpy(chosen)] = values
    return rows
