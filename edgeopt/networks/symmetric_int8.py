"""Int8 around zero, as a torchao quantizer: what targets without zero points have in common."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e import (
    FakeQuantize,
    HistogramObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
)
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec, Quantizer
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

from edgeopt.networks.layers import LayerCall
from edgeopt.option_values import Observer

LARGEST = 127  # and the least integer of a weight is -127: -128 has no counterpart


class SymmetricQuantizer(Quantizer):  # type: ignore[misc]  # torchao ships no types
    """Int8 without zero points: a scale for an activation, and one for each channel of a weight's first axis.

    A target's own class says in `annotate` which values are rounded, by `round_layer` and `round_input`. `smallest` is
    the least integer of activations. When calibrating, `observer` finds their range; training always follows a moving
    minimum and maximum.
    """

    def __init__(self, *, qat: bool, observer: Observer, smallest: int = -128) -> None:
        super().__init__()
        activation: Any = HistogramObserver if observer == "histogram" else MinMaxObserver
        weight: Any = PerChannelMinMaxObserver
        if qat:
            activation = FakeQuantize.with_args(observer=MovingAverageMinMaxObserver)
            weight = FakeQuantize.with_args(observer=MovingAveragePerChannelMinMaxObserver)
        around_zero, by_channel = torch.per_tensor_symmetric, torch.per_channel_symmetric
        self._activation = QuantizationSpec(torch.int8, activation, smallest, LARGEST, around_zero)
        self._weight = QuantizationSpec(torch.int8, weight, -LARGEST, LARGEST, by_channel, ch_axis=0)

    def round_layer(self, layer: LayerCall) -> None:
        """Has what enters a layer be rounded, and its weight."""
        self._round(layer.node, {layer.input: self._activation, layer.weight: self._weight})

    def round_input(self, node: Node, entering: Node) -> None:
        """Has one of the values that enter `node` be rounded."""
        self._round(node, {entering: self._activation})

    def validate(self, model: GraphModule) -> None:
        """Every annotation here is one that the target takes."""

    @staticmethod
    def _round(node: Node, specs: dict[Node, QuantizationSpec]) -> None:
        node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(input_qspec_map=specs, _annotated=True)
