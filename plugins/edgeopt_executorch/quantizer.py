"""The numerics of ExecuTorch's XNNPACK backend, as a torchao quantizer."""

from __future__ import annotations

from dataclasses import replace

import torch
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    QuantPattern,
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

from edgeopt.networks.batch_norms import groups_of
from edgeopt.networks.layers import layer_call, layer_operator, operator_name
from edgeopt_executorch.rewrites.clamps import CLAMPS, activation_of

aten = torch.ops.aten
_CLIPS = {aten.hardtanh.default, aten.hardtanh_.default, *CLAMPS}
_CLIPPED = {aten.add.Tensor, aten.batch_norm.default}  # and every layer with a weight


class XnnpackQuantizer(XNNPACKQuantizer):  # type: ignore[misc]  # ExecuTorch ships no types
    """XNNPACK's quantizer, which rounds after a ReLU6 as it does after a ReLU, and not before.

    Rounding before it gives half of the integers to values that the next operator clips away, and leaves that operator
    between a layer and its integers, where no runtime fuses them.

    An average over a whole map has a range of its own, as squeeze-and-excitation wants it.

    A transposed convolution has its scales on the axis of its output channels, and stays in float with groups, before a
    BatchNorm too: ExecuTorch's annotation of that one forgets both, and its lowering takes nothing else.
    """

    def __init__(self) -> None:
        super().__init__()
        self.set_filter_function(_is_taken)

    def annotate(self, model: GraphModule) -> GraphModule:
        self.SUPPORTED_PATTERNS = _patterns_that_can_match(model)
        model = super().annotate(model)
        _scale_output_channels(model)
        _give_averages_a_range(model, self.global_config.output_activation if self.global_config else None)
        for node in model.graph.nodes:
            if node.op != "call_function" or node.target not in _CLIPS:
                continue
            if node.target in CLAMPS and activation_of(node) is None:
                continue  # stays outside of the layer
            layer = node.args[0]
            given = layer.meta.get(Q_ANNOTATION_KEY)
            if layer.target not in _CLIPPED and layer_operator(operator_name(layer)) is None:
                continue
            if len(layer.users) > 1 or given is None or given.output_qspec is None:
                continue
            node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(output_qspec=given.output_qspec, _annotated=True)
            given.output_qspec = None
        return model


def _patterns_that_can_match(model: GraphModule) -> list[QuantPattern]:
    """Leaves out layers before a BatchNorm where there are none: the search traces twelve patterns, in seconds."""
    norms = [node for node in model.graph.nodes if node.target == aten.batch_norm.default]
    before = {node.args[0].target for node in norms}
    patterns = XNNPACKQuantizer.SUPPORTED_PATTERNS
    return [each for each in patterns if "_bn" not in each.name or before & each.op_overloads]


def _give_averages_a_range(model: GraphModule, activation: QuantizationSpec | None) -> None:
    """Gives each average over a whole map a range of its own, where XNNPACK's quantizer shares that of what enters.

    An average is far smaller than the largest value of its map: of 255 steps it uses a few. And with one scale on both
    sides it lies between two integers once in as many times as the map has places, where every kernel rounds to even
    and a float32 mean to either side.
    """
    if activation is None:
        return
    for node in model.graph.nodes:
        given = node.meta.get(Q_ANNOTATION_KEY)
        if given is not None and node.target is aten.adaptive_avg_pool2d.default and list(node.args[1]) == [1, 1]:
            given.output_qspec = activation


def _is_taken(node: Node) -> bool:
    layer = layer_call(node)
    return layer is None or groups_of(layer) == 1


def _scale_output_channels(model: GraphModule) -> None:
    for layer in filter(None, map(layer_call, model.graph.nodes)):
        annotation = layer.node.meta.get(Q_ANNOTATION_KEY)
        specs = {} if annotation is None else annotation.input_qspec_map
        spec = specs.get(layer.weight)
        if isinstance(spec, QuantizationSpec) and spec.qscheme == torch.per_channel_symmetric:
            specs[layer.weight] = replace(spec, ch_axis=layer.operator.weight_axis)


def build_xnnpack(*, per_channel: bool, qat: bool, zero_points: bool = True) -> XnnpackQuantizer:
    """Static int8 for every layer that XNNPACK runs in integers: symmetric weights, affine activations.

    `per_channel` gives each output channel of a weight a scale of its own. `qat` chooses observers that can be trained
    with. Without `zero_points` activations are symmetric as well, which TensorRT asks for: after a ReLU half of the
    integers are idle.

    Source: https://docs.pytorch.org/executorch/stable/backends/xnnpack/xnnpack-quantization.html
    """
    config = get_symmetric_quantization_config(is_per_channel=per_channel, is_qat=qat)
    if not zero_points:
        activation = replace(config.input_activation, qscheme=torch.per_tensor_symmetric)
        config = replace(config, input_activation=activation, output_activation=activation)
    quantizer = XnnpackQuantizer()
    quantizer.set_global(config)
    return quantizer


def build_xnnpack_dynamic() -> XNNPACKQuantizer:
    """Int8 weights with a scale for each output channel, and activations quantized by their range at run time."""
    return XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True))
