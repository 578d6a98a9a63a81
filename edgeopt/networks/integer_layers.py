"""Layers of a quantized program that compute with integers, as kernels do.

A captured program says what is rounded, and computes between in float32, where a sum of some hundred products is off in
its last bits. That is enough to round one value of a few thousand to the next integer, which later layers amplify: deep
in a network a tenth of all values can differ from those of the runtimes, all of which agree. Sums of integers are exact
in float32 up to 2**24, so that nothing depends on the order in which, or on how many threads, they are made; with
activations of int16 they are made in float64. Then they are scaled and rounded once, in the kernels' order. It is the
arithmetic of B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", CVPR 2018, section 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edgeopt.networks.layers import LayerCall, LayerKind, layer_call, operator_name

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

_TO_FLOAT = "quantized_decomposed.dequantize_per_"
_TO_INTEGERS = "quantized_decomposed.quantize_per_tensor."
_CLIPS = ("aten.relu.", "aten.relu_.", "aten.hardtanh.", "aten.hardtanh_.", "aten.clamp.")
_WHOLE = 1e-2  # of a step of the sum: so near to an integer, a bias is one that was read back as float32
_REST = 3  # the place of the first argument behind input, weight and bias


def compute_with_integers(model: GraphModule) -> int:
    """Makes, in place, the linear layers and convolutions of a captured graph that read integers, and whose results are
    rounded, sum integers and round once; returns how many there were. All else stays as it is.
    """
    count = 0
    for node in list(model.graph.nodes):
        layer = layer_call(node)
        if layer is None or not _reads_integers(layer):
            continue
        clips, rounded = _until_rounded(node)
        if rounded is None:
            continue
        name = f"integer_layer_{count}"
        model.add_submodule(name, _IntegerLayer(layer, clips))
        with model.graph.inserting_before(rounded):
            arguments = (*layer.input.args[:3], *layer.weight.args[:3], layer.bias, *rounded.args[1:6])
            result = model.graph.call_module(name, arguments)
        rounded.replace_all_uses_with(result)
        count += 1
    if count:
        model.graph.eliminate_dead_code()
        model.recompile()
    return count


def _reads_integers(layer: LayerCall) -> bool:
    """Whether the input of a layer has one scale, and its weight one, or one for each output channel."""
    if layer.kind is LayerKind.TRANSPOSED or (layer.operator.input, layer.operator.weight_axis) != (0, 0):
        return False
    if layer.node.kwargs or any(set(each.kwargs) - {"out_dtype"} for each in (layer.input, layer.weight)):
        return False
    if not operator_name(layer.input).startswith(f"{_TO_FLOAT}tensor."):
        return False
    read = operator_name(layer.weight)
    return read.startswith(f"{_TO_FLOAT}tensor.") or (
        read.startswith(f"{_TO_FLOAT}channel.") and bool(layer.weight.args[3] == layer.operator.weight_axis)
    )


def _until_rounded(node: Node) -> tuple[list[Node], Node | None]:
    """The clips behind a layer, and what rounds their result; None where nothing does, or somebody else reads it."""
    clips: list[Node] = []
    while len(node.users) == 1:
        (node,) = node.users
        if operator_name(node).startswith(_TO_INTEGERS):
            return clips, node
        if not operator_name(node).startswith(_CLIPS):
            break
        clips.append(node)
    return [], None


class _IntegerLayer(nn.Module):
    """A linear layer or convolution with the `clips` behind it, from integers to integers."""

    def __init__(self, layer: LayerCall, clips: Sequence[Node]) -> None:
        super().__init__()
        self._operator: Any = layer.node.target
        self._rest = layer.node.args[_REST:]
        self._is_linear = layer.kind is LayerKind.LINEAR
        self._clips: list[tuple[Any, tuple[Any, ...]]] = [(each.target, each.args[1:]) for each in clips]

    def forward(
        self,
        images: Tensor,
        images_scale: float,
        images_zero: int,
        weight: Tensor,
        weight_scale: float | Tensor,
        weight_zero: int | Tensor,
        bias: Tensor | None,
        scale: float,
        zero: int,
        least: int,
        most: int,
        dtype: torch.dtype,
    ) -> Tensor:
        """Integers of the type `dtype`; `bias` is in the units of the result before it is rounded."""
        by_channel = (-1,) if self._is_linear else (-1, *[1] * (weight.dim() - 2))
        in_weight = (-1, *[1] * (weight.dim() - 1))
        exact = torch.float64 if images.dtype is torch.int16 else torch.float32
        entering = images.to(exact) - images_zero
        factors = weight.to(exact) - torch.as_tensor(weight_zero).reshape(in_weight)
        sums: Tensor = self._operator(entering, factors, None, *self._rest)
        # float32 from here on, and divided last: so kernels make the one factor of each channel
        units = torch.as_tensor(images_scale, dtype=torch.float32) * torch.as_tensor(weight_scale, dtype=torch.float32)
        if bias is not None:
            added = bias.double() / units.double()
            whole = added.round()
            sums += torch.where((added - whole).abs() < _WHOLE, whole, added).to(exact).reshape(by_channel)
        result = sums * (units / torch.as_tensor(scale, dtype=torch.float32)).reshape(by_channel)
        for clip, arguments in self._clips:  # in steps of the result, as all is here
            result = clip(result, *(each / scale if isinstance(each, int | float) else each for each in arguments))
        return (result.round() + zero).clamp(least, most).to(dtype)
