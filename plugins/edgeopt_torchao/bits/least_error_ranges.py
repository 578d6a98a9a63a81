"""Ranges that saturate: with few bits, the least error lies inside of the largest value.

Of 80 ranges between a fraction of the largest value and all of it, that with the least squared error is taken (the
search of R. Banner et al., "Post training 4-bit quantization", 2019, by trial in place of a formula).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchao.quantization.pt2e import HistogramObserver, MinMaxObserver, PerChannelMinMaxObserver

TRIALS = 80
SMALLEST = 0.2


class LeastErrorHistogramObserver(HistogramObserver):  # type: ignore[misc]
    """A histogram whose search for a range counts the integers that there are; torchao's own always counts 256."""

    def __init__(self, **arguments: Any) -> None:  # torchao hands over what a specification holds
        super().__init__(**arguments)
        self.dst_nbins = self.quant_max - self.quant_min + 1


class LeastErrorObserver(MinMaxObserver):  # type: ignore[misc]
    """The range of a weight, around zero, with the least squared error of rounding."""

    @torch.no_grad()
    def forward(self, x_orig: Tensor) -> Tensor:
        if not torch.isinf(self.max_val):  # a weight is all there: once is enough
            return x_orig
        limit = self.quant_max * least_error_step(x_orig.detach().reshape(1, -1), self.quant_max)
        self.min_val.copy_(-limit[0])
        self.max_val.copy_(limit[0])
        return x_orig


class LeastErrorPerChannelObserver(PerChannelMinMaxObserver):  # type: ignore[misc]
    """As `LeastErrorObserver`, for each channel."""

    @torch.no_grad()
    def forward(self, x_orig: Tensor) -> Tensor:
        if self.max_val.numel():  # a weight is all there: once is enough
            return x_orig
        rows = x_orig.detach().movedim(max(self.ch_axis, 0), 0).flatten(1)
        limit = self.quant_max * least_error_step(rows, self.quant_max)
        self.min_val.resize_(limit.shape).copy_(-limit)
        self.max_val.resize_(limit.shape).copy_(limit)
        return x_orig


@torch.no_grad()
def least_error_step(rows: Tensor, quant_max: int) -> Tensor:
    """The step of the integers -quant_max … quant_max with the least squared error for each row.

    Takes `rows`, float32 (n, values), and returns float32 (n,). A row of zeros gets a step of zero.
    """
    largest = rows.abs().amax(1)
    best = largest / quant_max
    least = torch.full_like(largest, float("inf"))
    for share in torch.linspace(SMALLEST, 1.0, TRIALS).tolist():
        step = largest * share / quant_max
        inverse = torch.where(step > 0, 1 / step, 0)[:, None]
        rounded = (rows * inverse).round_().clamp_(-quant_max, quant_max).mul_(step[:, None])
        error = rounded.sub_(rows).square_().sum(1)
        best = torch.where(error < least, step, best)
        least = torch.minimum(error, least)
    return best
