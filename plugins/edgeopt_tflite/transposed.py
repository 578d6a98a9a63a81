"""Transposed convolutions as TFLite has them: without padding, groups or dilation, which are spelled out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch.fx import GraphModule, Node

from edgeopt.networks.layers import LayerCall, LayerKind, constant_of, layer_call
from edgeopt.networks.tensors import free_name, named_tensor, set_named_tensor

aten = torch.ops.aten


@dataclass(frozen=True)
class _Window:
    """How a transposed convolution moves, a number for each axis, and its groups."""

    strides: tuple[int, ...]
    paddings: tuple[int, ...]
    output_paddings: tuple[int, ...]
    groups: int
    dilations: tuple[int, ...]


def settle_transposed(module: GraphModule) -> int:
    """The same function with plain transposed convolutions, in place; returns how many layers were spelled out.

    Padding cuts the ends off a result, output padding leaves more of its far end, groups are layers of their own side
    by side, and a dilated weight is a larger one with zeros, which round to themselves.
    """
    changed = 0
    for node in list(module.graph.nodes):
        layer = layer_call(node)
        if layer is None or layer.kind is not LayerKind.TRANSPOSED:
            continue
        window = _window(layer)
        is_dilated = set(window.dilations) != {1}
        if window.groups == 1 and not is_dilated and not any((*window.paddings, *window.output_paddings)):
            continue
        kernel = tuple(layer.weight.meta["val"].shape)
        if is_dilated:
            _spread_weight(module, layer, window)
        with module.graph.inserting_before(node):
            node.replace_all_uses_with(_spelled_out(module, node, window, kernel))
        module.graph.erase_node(node)
        changed += 1
    module.graph.eliminate_dead_code()
    module.recompile()
    return changed


def _window(layer: LayerCall) -> _Window:
    axes = layer.node.meta["val"].dim() - 2
    defaults: tuple[Any, ...] = (1, 0, 0, 1, 1)
    given = (*layer.node.args[3:], *defaults[len(layer.node.args[3:]) :])

    def spread(number: Any) -> Any:
        numbers = (number,) if isinstance(number, int) else tuple(number)
        return numbers * (axes if len(numbers) == 1 else 1)

    values = {field.name: each for field, each in zip(fields(_Window), given, strict=True)}
    return _Window(**{name: each if name == "groups" else spread(each) for name, each in values.items()})


def _spelled_out(module: GraphModule, node: Node, window: _Window, kernel: Sequence[int]) -> Node:
    """The result of plain layers that do what `node` does; `kernel` is the shape of its weight without dilation."""
    call, layer = module.graph.call_function, layer_call(node)
    assert layer is not None
    inputs, wanted = layer.input.meta["val"].shape, node.meta["val"].shape[2:]
    # what a plain one gives, of which padding leaves a part: from `paddings` on, and perhaps beyond the end
    full = [
        (inputs[axis + 2] - 1) * window.strides[axis] + window.dilations[axis] * (kernel[axis + 2] - 1) + 1
        for axis in range(len(wanted))
    ]
    beyond = [max(0, pad + length - whole) for pad, length, whole in zip(window.paddings, wanted, full, strict=True)]
    bias = None if any(beyond) else layer.bias  # beyond the end there is the bias alone
    step = inputs[1] // window.groups
    pieces = []
    for group in range(window.groups):
        value, own, own_bias = layer.input, layer.weight, bias
        if window.groups > 1:
            start = group * step
            value = call(aten.slice.Tensor, (value, 1, start, start + step))
            own = call(aten.slice.Tensor, (own, 0, start, start + step))
            if bias is not None:
                own_bias = call(aten.slice.Tensor, (bias, 0, group * kernel[1], (group + 1) * kernel[1]))
        pieces.append(call(node.target, (value, own, own_bias, list(window.strides))))  # type: ignore[arg-type]
    result = pieces[0] if len(pieces) == 1 else call(aten.cat.default, (pieces, 1))
    for axis, (pad, length, whole) in enumerate(zip(window.paddings, wanted, full, strict=True), start=2):
        if (pad, length) != (0, whole):
            result = call(aten.slice.Tensor, (result, axis, pad, min(pad + length, whole)))
    if any(beyond):
        ends = [number for each in reversed(beyond) for number in (0, each)]
        result = call(aten.constant_pad_nd.default, (result, ends, 0.0))
        if layer.bias is not None:
            shaped = call(aten.reshape.default, (layer.bias, [1, -1, *[1] * len(wanted)]))
            result = call(aten.add.Tensor, (result, shaped))
    return result


def _spread_weight(module: GraphModule, layer: LayerCall, window: _Window) -> None:
    """Puts zeros between the values of a weight, where the window is dilated; one that is computed stays as it is."""
    source = constant_of(layer.weight)
    if source is None:
        return
    name = str(source.target)
    value = named_tensor(module, name).detach()
    sizes = [dilation * (size - 1) + 1 for dilation, size in zip(window.dilations, value.shape[2:], strict=True)]
    spread = value.new_zeros(*value.shape[:2], *sizes)
    spread[(slice(None), slice(None), *(slice(None, None, dilation) for dilation in window.dilations))] = value
    taken = {each: None for each, _ in [*module.named_parameters(), *module.named_buffers()]}
    name = free_name(f"{name}_dilated", spread, taken, "_dilated")
    set_named_tensor(module, name, torch.nn.Parameter(spread))
    with module.graph.inserting_before(source):
        own = module.graph.get_attr(name)
    source.replace_all_uses_with(own)
