"""Cross-layer equalization: channels that one layer makes large and the next makes small meet in the middle.

M. Nagel et al., "Data-free quantization through weight equalization and bias correction", ICCV 2019,
https://arxiv.org/abs/1906.04721, section 4.1. Only positively homogeneous operators, such as a ReLU or a pooling, may
stand between the two layers.

That paper takes a ReLU6 for a ReLU, which changes the model. Here the clip stays where it is, and the channels beneath
it are only scaled as far as no calibration image notices: one that reaches the clip is left alone, and no other is
made to reach it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from edgeopt.networks.batch_norms import fold_batch_norms
from edgeopt.networks.layers import LayerKind
from edgeopt.networks.tensors import named_tensor
from edgeopt.plugins import NothingChangedError
from edgeopt_torchao.bits.rules import QuantizableLayer, weighted_layers
from edgeopt_torchao.graph.arguments import node_at

aten = torch.ops.aten
ROUNDS = 20
_SETTLED = 0.01  # of a scale, in one round
_HOMOGENEOUS = {
    aten.relu.default,
    aten.relu_.default,
    aten.max_pool2d.default,
    aten.avg_pool2d.default,
    aten.adaptive_avg_pool2d.default,
}
_CLIPS = {aten.hardtanh.default, aten.hardtanh_.default, aten.clamp.default, aten.clamp_.default}


@dataclass(frozen=True)
class Pair:
    """Two layers that only share channels with each other, and the node between them that clips values, if any."""

    first: QuantizableLayer
    second: QuantizableLayer
    clip: Node | None


@torch.no_grad()
def equalize(model: GraphModule, batches: Iterable[Tensor]) -> int:
    """Folds a captured float program's BatchNorms and equalizes its weights, in place; returns the number of pairs.

    `batches`, float32 images, show how far the channels under a clip reach.

    Raises `NothingChangedError` when no two layers follow each other so that channels can be scaled between them.
    """
    fold_batch_norms(model)
    pairs = find_pairs(model)
    if not pairs:
        raise NothingChangedError(
            "equalize: no two layers of this model share channels that could be scaled between them",
            hint="only a ReLU, a ReLU6 or pooling may stand between them; leave equalize out",
        )
    reached = _largest_inputs(model, {pair.clip for pair in pairs if pair.clip is not None}, batches)
    for _ in range(ROUNDS):
        moved = max(_equalize_pair(model, pair, reached) for pair in pairs)
        if moved < _SETTLED:
            break
    return len(pairs)


def find_pairs(model: GraphModule) -> list[Pair]:
    """The pairs of layers of a captured program without BatchNorm whose channels can be scaled between them."""
    layers = {layer.node: layer for layer in weighted_layers(model)}
    found = []
    for first in layers.values():
        clip, node = None, first.node
        while len(node.users) == 1:
            (node,) = node.users
            if node in layers:
                second = layers[node]
                if _is_paired(model, first, second):
                    found.append(Pair(first, second, clip))
                break
            if _is_clip(node) and clip is None:
                clip = node
            elif node.target not in _HOMOGENEOUS and not _drops_single_pixels(node):
                break
    return found


def _is_clip(node: Node) -> bool:
    """Whether it is a ReLU that is cut off above."""
    if node.target not in _CLIPS or len(node.args) != 3:
        return False
    low, high = node.args[1:]
    return isinstance(low, int | float) and low == 0 and isinstance(high, int | float)


def _drops_single_pixels(node: Node) -> bool:
    """Whether it only takes away axes of length 1, as between a global pooling and a linear layer."""
    if node.target not in {aten.flatten.using_ints, aten.view.default, aten.reshape.default, aten.squeeze.dims}:
        return False
    before = node_at(node, 0).meta["val"].shape
    return len(before) == 4 and tuple(before[2:]) == (1, 1)


def _is_paired(model: GraphModule, first: QuantizableLayer, second: QuantizableLayer) -> bool:
    """Whether each output channel of the first layer is an input of the second, and nobody else reads the weights."""
    outer, inner = _weight(model, first), _weight(model, second)
    alone = len(first.weight.users) == 1 and len(second.weight.users) == 1 and first.node is not second.node
    plain = all(layer.operator.weight_axis == 0 for layer in (first, second))
    channels = outer.shape[0]
    return alone and plain and (inner.shape[1] == channels or _is_depthwise(second, inner, channels))


def _is_depthwise(layer: QuantizableLayer, weight: Tensor, channels: int) -> bool:
    return layer.operator.kind is LayerKind.CONVOLUTION and weight.shape[1] == 1 and weight.shape[0] == channels


def _weight(model: GraphModule, layer: QuantizableLayer) -> Tensor:
    return named_tensor(model, str(layer.weight.target))


def _equalize_pair(model: GraphModule, pair: Pair, reached: dict[Node, Tensor]) -> float:
    """Divides each channel of the first layer by a scale, and multiplies the second by it.

    Returns how far the scales were from 1, as the largest absolute logarithm.
    """
    outer, inner = _weight(model, pair.first), _weight(model, pair.second)
    by_channel = inner if inner.shape[0] == len(outer) and inner.shape[1] == 1 else inner.transpose(0, 1)
    leaves, enters = outer.flatten(1).abs().amax(1), by_channel.flatten(1).abs().amax(1)
    scale = torch.where((leaves > 0) & (enters > 0), (leaves / enters).sqrt(), 1.0)
    if pair.clip is not None:
        limit, largest = float(pair.clip.args[2]), reached[pair.clip]  # type: ignore[arg-type]
        scale = torch.where(largest > limit, 1.0, torch.maximum(scale, largest / limit))
        reached[pair.clip] = largest / scale
    outer.div_(scale.view(-1, *[1] * (outer.dim() - 1)))
    by_channel.mul_(scale.view(-1, *[1] * (by_channel.dim() - 1)))
    if pair.first.bias is not None:
        named_tensor(model, str(pair.first.bias.target)).div_(scale)
    return float(scale.log().abs().max())


def _largest_inputs(model: GraphModule, clips: set[Node], batches: Iterable[Tensor]) -> dict[Node, Tensor]:
    """The largest value of each channel that enters each clip, float32 (channels,)."""
    if not clips:
        return {}
    largest: dict[Node, Tensor] = {}

    class Watching(Interpreter):
        def run_node(self, node: Node) -> object:
            if node in clips:
                channels = self.env[node_at(node, 0)].movedim(1, 0).flatten(1).amax(1)
                largest[node] = torch.maximum(largest.get(node, channels), channels)
            return super().run_node(node)

    watching = Watching(model)
    for batch in batches:
        watching.run(batch)
    return largest
