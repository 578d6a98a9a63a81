"""The numerics of ncnn's int8, as a torchao quantizer.

ncnn rounds what enters a convolution or a fully connected layer, to -127..127 with one scale and no zero point, and
their weights with a scale for each output channel. All else stays in float: what a layer gives is rounded where the
next layer takes it, so that sums, averages and activation functions have nothing to lose. Depthwise convolutions, and
those of few channels, as a network's first one is, stay in float unless they are asked for: ncnn's int8 kernels take
channels by eight, and for these layers take longer than those for floats.
Source: https://github.com/Tencent/ncnn, `src/layer/convolution.cpp`
"""

from __future__ import annotations

from torch.fx import GraphModule

from edgeopt.networks.layers import layer_call
from edgeopt.networks.symmetric_int8 import SymmetricQuantizer
from edgeopt.plugins import Observer
from edgeopt_ncnn.rewrites.rounding import LARGEST, has_int8_kernel, is_slow_in_int8


class NcnnQuantizer(SymmetricQuantizer):
    """Int8 for what enters the layers that ncnn has in int8, and for their weights."""

    def __init__(self, *, qat: bool, observer: Observer, all_layers: bool) -> None:
        super().__init__(qat=qat, observer=observer, smallest=-LARGEST)
        self._all_layers = all_layers

    def annotate(self, model: GraphModule) -> GraphModule:
        for layer in filter(None, map(layer_call, model.graph.nodes)):
            if has_int8_kernel(layer) and (self._all_layers or not is_slow_in_int8(layer)):
                self.round_layer(layer)
        return model
