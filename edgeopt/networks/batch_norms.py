"""BatchNorm folded into the layer before it, in a graph that was captured in evaluation mode.

torchao folds as well, and where the layer's result goes elsewhere too, as in a residual, it changes that reader's
values. torch's arithmetic of it, which torchao and ExecuTorch call, takes the second axis of a transposed convolution's
weight for all of its output channels; with groups it holds those of one group. So whatever is handed to them is folded
here first, and a BatchNorm that must stay is hidden from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeopt.networks.layers import LayerCall, LayerKind, layer_call, operator_name
from edgeopt.networks.tensors import constants_read, name_beside, named_tensor, set_named_tensor

if TYPE_CHECKING:  # torch is heavy: whoever has a graph has imported it already
    from torch import Tensor
    from torch.fx import GraphModule, Node

BATCH_NORM = "aten.batch_norm.default"
_GROUPS_OF_TRANSPOSED, _GROUPS_OF_EITHER = 6, 8  # places of arguments: of `aten.conv_transpose*`, of `aten.convolution`


@dataclass(frozen=True, eq=False)
class BatchNormCall:
    """A BatchNorm that normalizes `source` with constants: the names of its tensors, None where it has none."""

    source: Node
    weight: str | None
    bias: str | None
    mean: str
    variance: str
    epsilon: float


def batch_norm_call(node: Node) -> BatchNormCall | None:
    """What a BatchNorm of evaluation mode reads; None for other nodes, and where it uses statistics of its batch."""
    if operator_name(node) != BATCH_NORM:
        return None
    arguments: tuple[Any, ...] = tuple(node.args)  # fx types arguments as everything that can be one
    source, *constants, is_training, _, epsilon = arguments[:8]
    if is_training or constants[2] is None or any(getattr(each, "op", "get_attr") != "get_attr" for each in constants):
        return None
    weight, bias, mean, variance = (None if each is None else str(each.target) for each in constants)
    return BatchNormCall(source, weight, bias, str(mean), str(variance), epsilon)


def fold_batch_norms(model: GraphModule) -> int:
    """Folds, in place, each BatchNorm into the convolution or linear layer that it alone reads; returns how many."""
    folded = 0
    for node in list(model.graph.nodes):
        norm = batch_norm_call(node)
        layer = None if norm is None else layer_call(norm.source)
        if norm is None or layer is None or not _can_take(layer):
            continue
        _fold(model, norm, layer)
        node.replace_all_uses_with(layer.node)
        model.graph.erase_node(node)
        folded += 1
    if folded:
        model.graph.eliminate_dead_code()
        model.recompile()
    return folded


def hide_batch_norms(model: GraphModule, *, behind_layers: bool = False) -> None:
    """Renames the BatchNorm operators, all or those directly `behind_layers`, so that no library's folding finds them.

    The nodes stay the same objects, as quantization annotations refer to them; `is_hidden` knows them. A BatchNorm
    without running statistics always uses its batch, and stays as it is.
    """
    for node in model.graph.nodes:
        if operator_name(node) != BATCH_NORM or node.args[3] is None:
            continue
        if not behind_layers or layer_call(node.args[0]) is not None:
            node.target = _hidden_batch_norm


def show_batch_norms(model: GraphModule) -> None:
    """Makes the hidden ones operators again."""
    import torch

    for node in model.graph.nodes:
        if is_hidden(node):
            node.target = torch.ops.aten.batch_norm.default
    model.recompile()


def is_hidden(node: Node) -> bool:
    """Whether a node is a BatchNorm that `hide_batch_norms` renamed."""
    return node.target is _hidden_batch_norm


def _hidden_batch_norm(*_: object) -> Tensor:
    raise AssertionError("a hidden BatchNorm was run before anything was put in its place")


def scaled_weight(weight: Tensor, scale: Tensor, kind: LayerKind, groups: int = 1) -> Tensor:
    """A layer's weight, each of its output channels multiplied by its own number in `scale`, (channels,)."""
    ones = [1] * (weight.dim() - 2)
    if kind is not LayerKind.TRANSPOSED:
        return weight * scale.view(-1, 1, *ones)
    split = weight.view(groups, weight.shape[0] // groups, *weight.shape[1:])  # (groups, inputs, outputs, ...) of each
    return (split * scale.view(groups, 1, -1, *ones)).view(weight.shape)


def groups_of(layer: LayerCall) -> int:
    """How many groups a transposed convolution has; 1 for other layers, whose weights have all outputs on one axis."""
    if layer.kind is not LayerKind.TRANSPOSED:
        return 1
    is_either = operator_name(layer.node).startswith("aten.convolution.")
    place = _GROUPS_OF_EITHER if is_either else _GROUPS_OF_TRANSPOSED
    groups: Any = layer.node.args[place] if len(layer.node.args) > place else layer.node.kwargs.get("groups", 1)
    return int(groups)


def _can_take(layer: LayerCall) -> bool:
    """Whether a BatchNorm can be folded into a layer: a constant weight, a result for no other reader, and channels on
    the axis that BatchNorm has them on.
    """
    if len(layer.node.users) > 1 or any(
        each is not None and each.op != "get_attr" for each in (layer.weight, layer.bias)
    ):
        return False
    if layer.kind is LayerKind.LINEAR:
        return operator_name(layer.node) == "aten.linear.default" and layer.node.meta["val"].dim() == 2
    return True


def _fold(model: GraphModule, norm: BatchNormCall, layer: LayerCall) -> None:
    import torch

    weight, mean = (named_tensor(model, name).detach() for name in (str(layer.weight.target), norm.mean))
    gain, shift, bias = (
        default if name is None else named_tensor(model, name).detach()
        for name, default in (
            (norm.weight, torch.ones_like(mean)),
            (norm.bias, torch.zeros_like(mean)),
            (None if layer.bias is None else str(layer.bias.target), torch.zeros_like(mean)),
        )
    )
    inverse = torch.rsqrt(named_tensor(model, norm.variance).detach() + norm.epsilon)
    folded = scaled_weight(weight, gain * inverse, layer.kind, groups_of(layer)).to(weight.dtype)
    beside = name_beside(str(layer.weight.target), "bias")
    both = (
        _put(model, layer, layer.weight, str(layer.weight.target), folded),
        _put(model, layer, layer.bias, beside, ((bias - mean) * inverse * gain + shift).to(weight.dtype)),
    )
    layer.node.args = (layer.input, *both, *layer.node.args[3:])  # of layers that are folded into
    layer.node.kwargs = {name: each for name, each in layer.node.kwargs.items() if name != "bias"}


def _put(model: GraphModule, layer: LayerCall, given: Node | None, name: str, value: Tensor) -> Node:
    """The node of a weight or bias with another value: the `given` one, or one under a free name where others read that
    as well.
    """
    import torch

    if given is not None and len([each for each in model.graph.nodes if each.target == name]) == len(given.users) == 1:
        set_named_tensor(model, name, torch.nn.Parameter(value))
        return given
    taken = {*constants_read(model), *dict(model.named_parameters()), *dict(model.named_buffers())}
    while name in taken:
        name += "_folded"
    set_named_tensor(model, name, torch.nn.Parameter(value))
    with model.graph.inserting_before(layer.node):
        own = model.graph.get_attr(name)
    if "val" in layer.node.meta:
        own.meta["val"] = layer.node.meta["val"].fake_mode.from_tensor(value, static_shapes=True)
    return own
