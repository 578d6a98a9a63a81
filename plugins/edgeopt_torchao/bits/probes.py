"""The probes `bits` and `quantization`: one layer's weight, and what enters it, rounded to few bits."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor

from edgeopt.networks.bits import FLOAT_BITS, weight_range
from edgeopt.plugins import Change, ProbedNetwork

_SMALLEST_SCALE = 1e-12  # of a channel of zeros, which stay zeros


class BitsProbe:
    """Rounds weights symmetrically by output channel (-7 to 7 at four bits), and inputs affinely by tensor.

    The range of an input is the smallest and the largest value in `calibration`, float32 batches (n, channels, height,
    width), and 0. `inputs` are its bits, by default those of the weight. A BatchNorm after a convolution may be folded
    or not: it scales whole channels, each of which has a scale of its own.

    Source: R. Krishnamoorthi, "Quantizing deep
    convolutional networks for efficient inference: a whitepaper", 2018, sections 2.1 and 3.1.
    """

    def __init__(self, network: ProbedNetwork, calibration: Iterable[Tensor], inputs: int | None = None) -> None:
        self._network = network
        self._inputs = inputs
        self._ranges: dict[str, tuple[float, float]] = {}
        if inputs != FLOAT_BITS:
            network.watch(calibration, self._observe)
        self.layers = tuple(network.layers)

    def change(self, layer: str, level: float) -> Change:
        """The layer rounded to `level` bits."""
        bits = int(level)
        known = self._network.layers[layer]
        weight = round_weight(known.weight, bits, known.channel_axis)
        entering = self._inputs or bits
        if entering == FLOAT_BITS:
            return Change(weight)
        scale, zero_point = affine(*self._ranges[layer], entering)
        return Change(weight, partial(_round_input, scale=scale, zero_point=zero_point, most=2**entering - 1))

    def _observe(self, layer: str, entering: Tensor) -> None:
        low, high = self._ranges.get(layer, (0.0, 0.0))
        least, most = torch.aminmax(entering)
        self._ranges[layer] = min(low, least.item()), max(high, most.item())


def round_weight(weight: Tensor, bits: int, channel_axis: int) -> Tensor:
    """`weight` on the grid of integers from -(2^(bits-1) - 1) to 2^(bits-1) - 1, with a scale for each channel."""
    _, most = weight_range(bits)
    others = [axis for axis in range(weight.dim()) if axis != channel_axis]
    scale = (weight.abs().amax(dim=others) / most).clamp_min(_SMALLEST_SCALE)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, channel_axis, -most, most)


def affine(low: float, high: float, bits: int) -> tuple[float, int]:
    """Scale and zero point that spread the integers from 0 to 2^bits - 1 over a range that holds 0, which stays 0."""
    scale = (high - low) / (2**bits - 1)
    if not scale > 0.0 or not math.isfinite(scale):
        return 1.0, 0
    return scale, round(-low / scale)


def _round_input(entering: Tensor, scale: float, zero_point: int, most: int) -> Tensor:
    return torch.fake_quantize_per_tensor_affine(entering, scale, zero_point, 0, most)
