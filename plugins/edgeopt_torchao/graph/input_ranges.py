"""The range of the network's input, moved where pixels would lie between two integers.

Pixels have 256 values with equal steps between them. Normalized with mean 0.5 they reach as far below zero as above it,
and since zero must be an integer, 256 integers over this range all lie half a step beside a pixel: every pixel is
rounded to an even neighbour, so that two grey values become one, and a runtime that computes in another order rounds
either way. With one integer less over the same range no pixel is between two.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule
from torchao.quantization.pt2e import ObserverBase

from edgeopt_torchao.graph.batch_norm import called_module
from edgeopt_torchao.graph.fake_quantize import SYMMETRIC, FakeQuantizer

_NEAR = 0.01  # of a step: values that are further from the middle are rounded one way everywhere


def between_pixels(low: Tensor, high: Tensor, observer: ObserverBase) -> tuple[Tensor, Tensor]:
    """The range `low`..`high`, float32 scalars, with one step less over it where its ends lie between two integers.

    It is left as it is where they do not. Those of a symmetric range always do.
    """
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    steps = observer.quant_max - observer.quant_min
    if observer.qscheme in SYMMETRIC:
        wider = torch.maximum(-low, high) * (steps / (steps - 1))
        return -wider, wider
    step = (high - low) / steps
    position = torch.where(step > 0, low / step, 0.0)
    is_between = (position - position.floor() - 0.5).abs() < _NEAR
    return low, torch.where(is_between, high + (high - low) / (steps - 1), high)


def observe_between_pixels(prepared: GraphModule) -> None:
    """Lets the fake quantizers that round the inputs of a graph observe such ranges.

    Calibration needs no such thing: the histograms of torchao cut off a 2048th of the range, which no pixel shares.
    """
    inputs = {node for node in prepared.graph.nodes if node.op == "placeholder"}
    for node in prepared.graph.nodes:
        quantizer = called_module(prepared, node)
        if isinstance(quantizer, FakeQuantizer) and node.args[0] in inputs and not quantizer.is_per_channel:
            quantizer.moved_range = between_pixels
