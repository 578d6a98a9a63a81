"""Ranges of values that are read by what saturates, such as a gate: they end where it tells no values apart.

A hard sigmoid is 0 below -3 and 1 above 3. What goes into the gates of a MobileNetV3 can reach far beyond: with a range
over all of it, a few integers are left between -3 and 3, and each step of one is a tenth of what a gate can do. Ended
at -3 and 3, all 256 are.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e import ObserverBase

from edgeopt.networks.layers import operator_name
from edgeopt_torchao.graph.batch_norm import called_module
from edgeopt_torchao.graph.fake_quantize import FakeQuantizer


@dataclass(frozen=True)
class Saturation:
    """Below `low` and above `high` an operator gives what it gives at these ends, or the same 8-bit integer."""

    low: float
    high: float

    def of_values(self, values: Tensor) -> Tensor:
        """Values, of which those beyond the ends are moved there."""
        return values.clamp(self.low, self.high)

    def of_range(self, low: Tensor, high: Tensor, _observer: ObserverBase) -> tuple[Tensor, Tensor]:
        """A range that ends there too."""
        return self.of_values(low), self.of_values(high)


_BY_OPERATOR = {
    "aten.hardsigmoid": Saturation(-3.0, 3.0),
    "aten.hardswish": Saturation(-3.0, math.inf),
    "aten.sigmoid": Saturation(-8.0, 8.0),  # 0.0003 from its ends, a tenth of a step of its result
}


def observe_what_is_told_apart(prepared: GraphModule) -> int:
    """Lets the observers and fake quantizers of a graph whose values only such operators read observe no more than
    these tell apart; returns how many.
    """
    calls = Counter(str(node.target) for node in prepared.graph.nodes if node.op == "call_module")
    count = 0
    for node in prepared.graph.nodes:
        module = called_module(prepared, node)
        saturation = _of_readers(node)
        if saturation is None or calls[str(node.target)] > 1:  # one range for several tensors
            continue
        if _has_steps_enough(module):
            continue
        if isinstance(module, FakeQuantizer):
            module.moved_range = saturation.of_range
        elif isinstance(module, ObserverBase):
            module.register_forward_pre_hook(partial(_clipped, saturation))
        else:
            continue
        count += 1
    return count


def _has_steps_enough(module: Any) -> bool:
    """Whether its integers are so many that those beyond the ends are not missed, and 8 bits say nothing of them."""
    observer = getattr(module, "activation_post_process", module)
    return getattr(observer, "dtype", None) is torch.int16


def _of_readers(node: Node) -> Saturation | None:
    """Where all that read a node's result saturate; None where one does not."""
    found = [_BY_OPERATOR.get(operator_name(each).rpartition(".")[0].removesuffix("_")) for each in node.users]
    known = [each for each in found if each is not None]
    if not known or len(known) < len(found):
        return None
    return Saturation(min(each.low for each in known), max(each.high for each in known))


def _clipped(saturation: Saturation, _observer: Any, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (saturation.of_values(given[0]), *given[1:])
