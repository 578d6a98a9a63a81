"""Activations of sixteen bits with weights of eight, for any target's quantizer: "16x8".

All that a quantizer rounds to int8 besides weights is rounded to int16 around zero, as the kernels of LiteRT and of
TensorFlow Lite Micro take it: without zero points, from -32768 to 32767. Source: "Post-training integer quantization
with int16 activations", https://www.tensorflow.org/lite/performance/post_training_integer_quant_16x8, and what the
kernels themselves ask of zero points as they are prepared, such as
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/lite/kernels/depthwise_conv.cc
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torchao.quantization.pt2e import HistogramObserver, MinMaxObserver
from torchao.quantization.pt2e.quantizer import QuantizationSpec
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

from edgeopt.networks.bits import CONTAINER_BITS, WIDE_BITS, activation_range
from edgeopt.networks.layers import layer_call
from edgeopt.plugins import PluginError
from edgeopt_torchao.graph.around import QuantizerAround

ROOM = 2
_BYTES = (torch.int8, torch.uint8)


class RoomyObserver(MinMaxObserver):  # type: ignore[misc]  # as below
    """Twice the range that was seen while calibrating: an image beyond it would lose more than all rounding does, and
    of 65,536 integers half are enough.
    """

    @torch.no_grad()
    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        scale, zero_point = super().calculate_qparams()
        return scale * ROOM, zero_point


class WideningQuantizer(QuantizerAround):
    """`quantizer`, with int16 wherever it rounds an activation to int8."""

    def annotate(self, model: GraphModule) -> GraphModule:
        annotated = super().annotate(model)
        for node in annotated.graph.nodes:
            annotation = node.meta.get(Q_ANNOTATION_KEY)
            if annotation is None:
                continue
            layer = layer_call(node)
            for source, spec in list(annotation.input_qspec_map.items()):
                if layer is None or source is not layer.weight:
                    annotation.input_qspec_map[source] = _widened(spec)
            annotation.output_qspec = _widened(annotation.output_qspec)
        return annotated


def _widened(spec: Any) -> Any:
    """A specification for int16 in place of int8; anything else, such as "as that other value", as it is."""
    if not isinstance(spec, QuantizationSpec) or spec.dtype not in _BYTES:
        return spec
    if spec.is_dynamic:
        raise PluginError(
            "activations whose ranges are taken at run time have no int16 form",
            hint="use a quantizer with static ranges, such as `xnnpack`",
        )
    low, high = activation_range(WIDE_BITS)
    return replace(
        spec,
        dtype=torch.int16,
        quant_min=low,
        quant_max=high,
        qscheme=torch.per_tensor_symmetric,
        observer_or_fake_quant_ctr=_observer(spec.observer_or_fake_quant_ctr),
    )


def _observer(given: Any) -> Any:
    """The observer of a specification, for 65,536 integers.

    Nothing is won by saturating, which is what histograms are for. The least step is that of int8 by the integers that
    there are more, so that the smallest range stays.
    """
    partial = getattr(given, "p", None)
    kind, arguments = (given, {}) if partial is None else (partial.func, dict(partial.keywords))
    if kind is HistogramObserver:
        kind = RoomyObserver
    if "eps" in arguments:
        arguments["eps"] /= 2 ** (WIDE_BITS - CONTAINER_BITS)
    return kind.with_args(**arguments)
