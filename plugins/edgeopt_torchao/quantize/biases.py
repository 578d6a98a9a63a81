"""Rounds the biases of int8 layers as integer kernels do, so that a program answers as the files made from it.

A kernel adds integers of 32 bits: products of an activation and a weight, and the bias, which it rounds to the step of
these products, scale of the input times scale of the weight (Jacob et al., 2018, section 2.4,
https://arxiv.org/abs/1712.05877). torchao leaves biases in float. A bias moves by half of such a step at most, and yet
all files then round a value between two integers to one side and the program to the other, layer after layer.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from edgeopt.networks.bits import CONTAINER_BITS, bits_between
from edgeopt.networks.layers import LayerCall, layer_call
from edgeopt.networks.tensors import named_tensor, set_named_tensor

_PER_CHANNEL = torch.ops.quantized_decomposed.dequantize_per_channel.default
_PER_TENSOR = torch.ops.quantized_decomposed.dequantize_per_tensor.default


@torch.no_grad()
def round_biases(model: GraphModule) -> int:
    """Rounds, in place, the bias of each layer of a converted program that multiplies integers of eight bits; returns
    how many there are.

    Layers of fewer bits are left alone: runtimes unpack their weights to float, or to integers of another scale. So are
    layers whose input gets its scale at run time, and a bias that more than one layer adds.
    """
    layers = [layer for layer in map(layer_call, model.graph.nodes) if layer is not None and layer.bias is not None]
    readers = Counter(str(node.target) for node in model.graph.nodes if node.op == "get_attr" for _ in node.users)
    rounded = 0
    for layer in layers:
        step = _step_of_products(model, layer)
        if step is None or layer.bias is None or layer.bias.op != "get_attr" or readers[str(layer.bias.target)] > 1:
            continue
        bias = named_tensor(model, str(layer.bias.target))
        if step.numel() not in (1, bias.numel()):
            continue  # a weight whose scales lie along its inputs
        value = (torch.round(bias.double() / step) * step).to(bias.dtype)
        kept = nn.Parameter(value) if isinstance(bias, nn.Parameter) else value
        set_named_tensor(model, str(layer.bias.target), kept)
        rounded += 1
    return rounded


def _step_of_products(model: GraphModule, layer: LayerCall) -> Tensor | None:
    """The step of a product of input and weight, float64, one for all or one for each output channel; None where one of
    the two is no integer of eight bits.
    """
    of_input, of_weight = _scale(model, layer.input), _scale(model, layer.weight)
    if of_input is None or of_weight is None or of_input.numel() != 1:
        return None
    return of_input * of_weight


def _scale(model: GraphModule, node: Node) -> Tensor | None:
    """The scale of a dequantize node of eight bits, float64."""
    if node.op != "call_function" or node.target not in (_PER_CHANNEL, _PER_TENSOR):
        return None
    scale, first = node.args[1], 4 if node.target is _PER_CHANNEL else 3
    low, high = node.args[first : first + 2]
    if bits_between(int(low), int(high)) != CONTAINER_BITS:  # type: ignore[arg-type]  # fx has no types
        return None
    value = named_tensor(model, str(scale.target)) if isinstance(scale, Node) else torch.tensor(scale)
    return value.double().flatten()
