"""Parallel branches of convolutions and BatchNorms, merged into the one convolution that they add up to.

Networks such as RepVGG and MobileOne train several branches on one input, and run their sum as one convolution: all are
linear, so that their weights add up (Ding et al., 2021, https://arxiv.org/abs/2101.03697). Here that is read off the
captured graph, whatever the network calls its branches, and where channels were pruned as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgeopt.networks.batch_norms import BATCH_NORM, batch_norm_call
from edgeopt.networks.layers import LayerCall, layer_call, operator_name
from edgeopt.networks.tensors import (
    constants_read,
    free_name,
    name_beside,
    named_tensor,
    remove_named_tensor,
    set_named_tensor,
)

if TYPE_CHECKING:  # torch is heavy: whoever has a graph has imported it already
    from torch import Tensor
    from torch.fx import GraphModule, Node

_CONVOLUTIONS = ("aten.conv1d.default", "aten.conv2d.default", "aten.conv3d.default")
_SUMS = ("aten.add.Tensor", "aten.add_.Tensor")
_DIFFERENCES = ("aten.sub.Tensor", "aten.sub_.Tensor")
_PRODUCTS = ("aten.mul.Tensor", "aten.mul_.Tensor")
_MOST_ZEROS_FILLED = 0.01  # of a weight: less is chance, more is what pruning took away


@dataclass(frozen=True, eq=False)
class _Branch:
    """One term of a sum: what a convolution makes of `source`, or `source` itself; scaled for each channel and shifted.

    `scale` and `shift` are float64 (channels,). `is_plain` says that nothing was learned for it: a residual.
    """

    source: Node
    scale: Tensor
    shift: Tensor
    layer: LayerCall | None = None
    is_plain: bool = False

    def scaled(self, scale: Tensor) -> _Branch:
        return replace(self, scale=self.scale * scale, shift=self.shift * scale, is_plain=False)


@dataclass(frozen=True, eq=False)
class _Window:
    """How a convolution moves over its input; a number for each axis, and its groups."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    paddings: tuple[int, ...]
    dilations: tuple[int, ...]
    groups: int


@dataclass(frozen=True, eq=False)
class _Merged:
    """A convolution that stands in the graph without its weight and bias yet, and their names and values."""

    node: Node
    weight_name: str
    weight: Tensor
    bias: Tensor


def merge_branches(model: GraphModule) -> tuple[str, ...]:
    """Merges, in place, the parallel branches of a graph that was captured in evaluation mode; names the weights that
    took the others in.

    A sum is merged where all of its terms are convolutions or BatchNorms of one input, two or more of them learned, and
    where one convolution's window holds those of the others. A single convolution beside a plain residual stays: the
    ones that the residual would add to its weight would take the integers from the rest. So do branches whose zeros, as
    pruning left them, would be filled.
    """
    read_before = constants_read(model)
    found: list[_Merged] = []
    gone: set[Node] = set()
    for node in reversed(list(model.graph.nodes)):
        if node not in gone and operator_name(node) in (*_SUMS, *_DIFFERENCES, *_PRODUCTS, BATCH_NORM):
            used: list[Node] = []
            branches = _branches(model, node, used, is_root=True)
            if (merged := _merge(model, node, branches)) is not None:
                found.insert(0, merged)
                gone.update(_erase(model, used))
    read = constants_read(model)
    taken: dict[str, Tensor | None] = dict.fromkeys(read)  # None: other nodes read it too
    for each in found:
        name = free_name(each.weight_name, each.weight, taken, "_merged")
        taken[name] = each.weight
        _put(model, each, name)
    for name in read_before - constants_read(model):
        remove_named_tensor(model, name)
    model.recompile()
    return tuple(each.weight_name for each in found)


# ---- what adds up --------------------------------------------------------------------------------------------------


def _branches(model: GraphModule, node: Node, used: list[Node], *, is_root: bool = False) -> list[_Branch]:
    """The terms that `node` is the sum of; `used` gets the nodes that compute them."""
    import torch

    channels = node.meta["val"].shape[1] if node.meta["val"].dim() > 1 else 0
    ones, zeros = (make(channels, dtype=torch.float64) for make in (torch.ones, torch.zeros))
    name = operator_name(node)
    if is_root or len(node.users) == 1:
        if name in (*_SUMS, *_DIFFERENCES) and not node.kwargs and _has_equal_sides(node):
            used.append(node)
            signs = (1.0, -1.0 if name in _DIFFERENCES else 1.0)
            sides = [(sign, each) for sign, each in zip(signs, _arguments(node), strict=True) if each != 0]
            terms = [(sign, _branches(model, each, used)) for sign, each in sides]
            return [each if sign > 0 else each.scaled(-ones) for sign, side in terms for each in side]
        if (affine := _affine(model, node, channels)) is not None:
            used.append(node)
            source, scale, shift = affine
            first, *rest = (each.scaled(scale) for each in _branches(model, source, used))
            return [replace(first, shift=first.shift + shift), *rest]
        layer = layer_call(node) if name in _CONVOLUTIONS else None
        if layer is not None and layer.weight.op == "get_attr" and (layer.bias is None or layer.bias.op == "get_attr"):
            used.append(node)
            bias = zeros if layer.bias is None else _value(model, str(layer.bias.target))
            return [_Branch(layer.input, ones, bias, layer)]
    return [_Branch(node, ones, zeros, is_plain=True)]


def _has_equal_sides(node: Node) -> bool:
    """Whether nothing is broadcast in a sum: its sides have its shape, or one of them is the number 0."""
    shape = node.meta["val"].shape
    shapes = [each.meta["val"].shape if hasattr(each, "meta") else None for each in _arguments(node)]
    return any(each is not None for each in shapes) and all(
        given == shape if given is not None else each == 0 for each, given in zip(node.args, shapes, strict=True)
    )


def _arguments(node: Node) -> tuple[Any, ...]:
    """Fx types a node's arguments as everything that can be one."""
    return tuple(node.args)


def _affine(model: GraphModule, node: Node, channels: int) -> tuple[Node, Tensor, Tensor] | None:
    """The input of a BatchNorm, or of a product by a constant for each channel, with its scale and shift, float64
    (channels,).
    """
    import torch

    zeros = torch.zeros(channels, dtype=torch.float64)
    name = operator_name(node)
    if (norm := batch_norm_call(node)) is not None:
        scale = torch.rsqrt(_value(model, norm.variance) + norm.epsilon)
        if norm.weight is not None:
            scale = scale * _value(model, norm.weight)
        shift = -_value(model, norm.mean) * scale
        return norm.source, scale, shift if norm.bias is None else shift + _value(model, norm.bias)
    if name in _PRODUCTS:
        for source, factor in (_arguments(node), _arguments(node)[::-1]):
            if getattr(factor, "op", "") == "get_attr" and _is_computed(source) and name != "aten.mul_.Tensor":
                value = _value(model, str(factor.target))
                shape, ndim = tuple(value.shape), node.meta["val"].dim()
                if shape[-ndim:] in ((channels, *[1] * (ndim - 2)), (1, channels, *[1] * (ndim - 2))):
                    return source, value.reshape(-1), zeros
    return None


def _value(model: GraphModule, name: str) -> Tensor:
    return named_tensor(model, name).detach().double()


def _is_computed(argument: object) -> bool:
    return getattr(argument, "op", "get_attr") != "get_attr"


# ---- the one convolution -------------------------------------------------------------------------------------------


def _merge(model: GraphModule, root: Node, branches: Sequence[_Branch]) -> _Merged | None:
    """Puts a convolution in the place of `root`, the sum of `branches`; None where they are left as they are."""
    import torch

    layers = [each.layer for each in branches if each.layer is not None]
    learned = sum(not each.is_plain for each in branches)
    source = branches[0].source
    if not layers or learned < 2 or any(each.source is not source for each in branches):
        return None
    if any(operator_name(user).partition(".")[2].partition(".")[0].endswith("_") for user in source.users):
        return None  # it is overwritten at some point, perhaps between its branches
    widest = max(layers, key=lambda each: _weight(model, each)[0, 0].numel())
    window, shape = _window(model, widest), _weight(model, widest).shape
    weight, bias = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape[0], dtype=torch.float64)
    for branch in branches:
        kernel = _kernel(model, branch, window, shape)
        if kernel is None:
            return None
        weight += kernel * branch.scale.view(-1, *[1] * (len(shape) - 1))
        bias += branch.shift
    own = _weight(model, widest)
    if ((own == 0) & (weight != 0)).double().mean() > _MOST_ZEROS_FILLED:
        return None
    with model.graph.inserting_before(root):
        node = model.graph.call_function(
            widest.node.target,  # type: ignore[arg-type]  # an operator
            (source, None, None, window.strides, window.paddings, window.dilations, window.groups),
        )
    node.meta = {**widest.node.meta, "val": root.meta["val"]}
    root.replace_all_uses_with(node)
    return _Merged(node, str(widest.weight.target), weight.to(own.dtype), bias.to(own.dtype))


def _weight(model: GraphModule, layer: LayerCall) -> Tensor:
    return named_tensor(model, str(layer.weight.target)).detach()


def _window(model: GraphModule, layer: LayerCall) -> _Window:
    sizes = tuple(_weight(model, layer).shape[2:])
    defaults: tuple[Any, ...] = (1, 0, 1, 1)
    own = _arguments(layer.node)[3:]
    *given, groups = (*own, *defaults[len(own) :])
    strides, paddings, dilations = (
        (each,) * len(sizes) if isinstance(each, int) else tuple(each) * (len(sizes) if len(each) == 1 else 1)
        for each in given
    )
    return _Window(sizes, strides, paddings, dilations, groups)


def _kernel(model: GraphModule, branch: _Branch, window: _Window, shape: Sequence[int]) -> Tensor | None:
    """The weight, float64 of `shape`, of a convolution with `window` that does what the branch does before its scale;
    None where there is none.
    """
    import torch

    axes = len(window.sizes)
    if branch.layer is None:
        if shape[0] != shape[1] * window.groups or set(window.strides) != {1}:
            return None
        own = torch.zeros(*shape[:2], *[1] * axes, dtype=torch.float64)
        outputs = torch.arange(shape[0])
        own[outputs, outputs % shape[1]] = 1.0
        small = _Window((1,) * axes, window.strides, (0,) * axes, window.dilations, window.groups)
    else:
        own, small = _weight(model, branch.layer).double(), _window(model, branch.layer)
        if own.shape[:2] != tuple(shape[:2]) or (small.strides, small.groups) != (window.strides, window.groups):
            return None
    places = []
    for axis in range(axes):
        before, left = divmod(window.paddings[axis] - small.paddings[axis], window.dilations[axis])
        has_steps = small.sizes[axis] > 1 and small.dilations[axis] != window.dilations[axis]
        if left or before < 0 or before + small.sizes[axis] > window.sizes[axis] or has_steps:
            return None
        places.append(slice(before, before + small.sizes[axis]))
    kernel = torch.zeros(tuple(shape), dtype=torch.float64)
    kernel[(slice(None), slice(None), *places)] = own
    return kernel


# ---- the graph -----------------------------------------------------------------------------------------------------


def _put(model: GraphModule, merged: _Merged, name: str) -> None:
    """Gives a merged convolution its weight and bias."""
    import torch

    names = name, name_beside(name, f"bias{name.rpartition('.')[2].removeprefix('weight')}")
    for place, (each, value) in enumerate(zip(names, (merged.weight, merged.bias), strict=True), start=1):
        set_named_tensor(model, each, torch.nn.Parameter(value.contiguous()))
        with model.graph.inserting_before(merged.node):
            merged.node.update_arg(place, model.graph.get_attr(each))


def _erase(model: GraphModule, nodes: Sequence[Node]) -> Iterator[Node]:
    """Takes out nodes that nothing reads any more, each after its readers."""
    for node in sorted(nodes, reverse=True):
        if not node.users:
            model.graph.erase_node(node)
            yield node
    for node in [each for each in model.graph.nodes if each.op == "get_attr" and not each.users]:
        model.graph.erase_node(node)
