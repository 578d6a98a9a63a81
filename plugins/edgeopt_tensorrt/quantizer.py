"""The numerics of TensorRT's explicit quantization, as a torchao quantizer.

TensorRT takes signed int8 with the zero point 0 and nothing else: a scale for each output channel of a weight, one
scale for a whole activation, and the bias in float. It fuses a layer into int8 when the layer's inputs come from
DequantizeLinear, and the sum of a residual into the convolution before it when the other side of the sum is quantized
as well.
Source: https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html
"""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from edgeopt.networks.layers import LayerCall, LayerKind, layer_call
from edgeopt.networks.symmetric_int8 import SymmetricQuantizer
from edgeopt.plugins import Observer

aten = torch.ops.aten
_SUMS = frozenset({aten.add.Tensor, aten.add_.Tensor})
_FUSED = frozenset(
    {aten.batch_norm.default, aten.relu.default, aten.relu_.default, aten.hardtanh.default, aten.hardtanh_.default}
)


class TensorRtQuantizer(SymmetricQuantizer):
    """Int8 for convolutions, linear layers and the identity side of residual sums, symmetric everywhere."""

    def __init__(self, *, qat: bool, observer: Observer, residual: bool) -> None:
        super().__init__(qat=qat, observer=observer)
        self._residual = residual

    def annotate(self, model: GraphModule) -> GraphModule:
        for node in model.graph.nodes:
            if layer := layer_call(node):
                if _takes_scales(layer):
                    self.round_layer(layer)
            elif self._residual and node.target in _SUMS and (identity := _identity_of(node)) is not None:
                self.round_input(node, identity)
        return model


def _takes_scales(layer: LayerCall) -> bool:
    # A weight that the network computes has no fixed range for each channel, and stays in float with its layer. So
    # does one with its output channels on another axis than the first, where TensorRT takes no scale per channel.
    return layer.operator.weight_axis == 0 and layer.weight.op == "get_attr" and _is_float(layer.input)


def build_tensorrt(*, qat: bool, observer: Observer = "histogram", residual: bool = True) -> TensorRtQuantizer:
    """TensorRT's quantizer for calibration, or with `qat` for training."""
    return TensorRtQuantizer(qat=qat, observer=observer, residual=residual)


def _identity_of(node: Node) -> Node | None:
    """The side of a sum to quantize: the other one is a convolution that nothing else reads. None where neither is.

    Where both are convolutions, as in a block that changes its size, the second side is quantized: by custom it is the
    shortcut.
    """
    first, second = node.args[:2]
    if not isinstance(first, Node) or not isinstance(second, Node) or first is second or not _same_shape(first, second):
        return None
    if _ends_in_convolution(first):
        return second
    is_in_place = node.target is aten.add_.Tensor  # into the first side, whose rounded copy others may read
    return first if _ends_in_convolution(second) and not is_in_place else None


def _ends_in_convolution(node: Node) -> bool:
    """Whether a sum can be fused into the convolution, with or without BatchNorm and ReLU, that `node` comes from."""
    while node.target in _FUSED and len(node.users) == 1 and isinstance(node.args[0], Node):
        node = node.args[0]
    layer = layer_call(node)
    return layer is not None and layer.kind is LayerKind.CONVOLUTION and len(node.users) == 1


def _same_shape(first: Node, second: Node) -> bool:
    shapes = [getattr(side.meta.get("val"), "shape", None) for side in (first, second)]
    return shapes[0] is not None and shapes[0] == shapes[1]


def _is_float(node: Node) -> bool:
    value = node.meta.get("val")
    return value is not None and value.dtype == torch.float32
