"""The numerics of ncnn's int8, as a torchao quantizer.

ncnn rounds what enters a convolution or a fully connected layer, to -127..127 with one scale and no zero point, and
their weights with a scale for each output channel. All else stays in float: what a layer gives is rounded where the
next layer takes it, so that sums, averages and activation functions have nothing to lose. Depthwise convolutions, and
those of few channels, as a network's first one is, stay in float unless they are asked for: ncnn's int8 kernels take
channels by eight, and for these layers take longer than those for floats.
Source: https://github.com/Tencent/ncnn, `src/layer/convolution.cpp`
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch.fx import GraphModule
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

from edgeopt.networks.layers import layer_call
from edgeopt_ncnn.rewrites.rounding import LARGEST, has_int8_kernel, is_slow_in_int8


class NcnnQuantizer(Quantizer):  # type: ignore[misc]  # torchao ships no types
    """Int8 for what enters the layers that ncnn has in int8, and for their weights.

    `observer` finds the range of activations when calibrating; training always follows a moving minimum and maximum.
    """

    def __init__(self, *, qat: bool, observer: Literal["histogram", "minmax"], all_layers: bool) -> None:
        super().__init__()
        self._all_layers = all_layers
        calibrating: Any = HistogramObserver if observer == "histogram" else MinMaxObserver
        training: Any = FakeQuantize.with_args(observer=MovingAverageMinMaxObserver)
        by_channel: Any = FakeQuantize.with_args(observer=MovingAveragePerChannelMinMaxObserver)
        self._activation = _spec(training if qat else calibrating, torch.per_tensor_symmetric)
        self._weight = _spec(by_channel if qat else PerChannelMinMaxObserver, torch.per_channel_symmetric, axis=0)

    def annotate(self, model: GraphModule) -> GraphModule:
        for node in model.graph.nodes:
            layer = layer_call(node) if node.op == "call_function" else None
            if layer is not None and has_int8_kernel(layer) and (self._all_layers or not is_slow_in_int8(layer)):
                specs = {layer.input: self._activation, layer.weight: self._weight}
                node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(input_qspec_map=specs, _annotated=True)
        return model

    def validate(self, model: GraphModule) -> None:
        """Every annotation here is one that ncnn takes."""


def _spec(constructor: Any, scheme: torch.qscheme, axis: int | None = None) -> QuantizationSpec:
    return QuantizationSpec(
        dtype=torch.int8,
        observer_or_fake_quant_ctr=constructor,
        quant_min=-LARGEST,
        quant_max=LARGEST,
        qscheme=scheme,
        ch_axis=axis,
    )
