"""Integer weights: coremltools reads a constant behind a dequantize node, and none behind a quantize node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.ao.quantization.fx._decomposed
from torch.fx.node import map_arg

from edgeopt.networks.bits import CONTAINER_BITS, weight_range
from edgeopt.networks.layers import layer_call, operator_name
from edgeopt.networks.tensors import free_name, named_tensor, set_named_tensor

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule

_QUANTIZE = "quantized_decomposed.quantize_per_"


def round_weights(model: GraphModule) -> int:
    """Rounds, in place, the constant weights of layers to int8, with a scale for each output channel and no zero point;
    returns how many there were.
    """
    operators = torch.ops.quantized_decomposed
    low, high = weight_range(CONTAINER_BITS)
    layers = [layer for layer in map(layer_call, model.graph.nodes) if layer and layer.weight.op == "get_attr"]
    for layer in layers:
        name, axis = str(layer.weight.target), layer.operator.weight_axis
        weight = named_tensor(model, name).detach()
        axis %= weight.dim()
        largest = weight.abs().amax([each for each in range(weight.dim()) if each != axis])
        set_named_tensor(model, f"{name}_scale", largest.clamp(min=torch.finfo(torch.float32).tiny) / high)
        set_named_tensor(model, f"{name}_zero", torch.zeros(len(largest), dtype=torch.int64))
        with model.graph.inserting_before(layer.node):
            scale, zero = (model.graph.get_attr(f"{name}_{each}") for each in ("scale", "zero"))
            how = (scale, zero, axis, low, high, torch.int8)
            integers = model.graph.call_function(operators.quantize_per_channel.default, (layer.weight, *how))
            rounded = model.graph.call_function(operators.dequantize_per_channel.default, (integers, *how))
        layer.node.replace_input_with(layer.weight, rounded)
    return len(layers)


def fold_integers(model: GraphModule) -> int:
    """Computes, in place, each quantize node of a constant; returns how many there were. Its integers are called after
    the constant, as `head.weight_integers`.
    """
    folded: dict[str, Tensor | None] = {}
    for node in list(model.graph.nodes):
        sources = node.all_input_nodes
        if not operator_name(node).startswith(_QUANTIZE) or any(each.op != "get_attr" for each in sources):
            continue
        arguments: Any = map_arg(node.args, lambda source: named_tensor(model, str(source.target)))
        value: Tensor = node.target(*arguments)
        name = free_name(f"{sources[0].target}_integers", value, folded, "_again")
        folded[name] = value
        set_named_tensor(model, name, value)
        with model.graph.inserting_before(node):
            integers = model.graph.get_attr(name)
        node.replace_all_uses_with(integers)
        model.graph.erase_node(node)
    model.graph.eliminate_dead_code()
    model.recompile()
    return len(folded)
