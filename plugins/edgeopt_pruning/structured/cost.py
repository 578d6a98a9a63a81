"""What a network costs, counted: multiply-accumulate operations and parameters, before and after channels go."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from edgeopt_pruning.structured.groups import ChannelGroup, Removal, watch

Lost = Mapping[tuple[str, bool], int]
"""How many channels go, by the name of the layer and whether they are its outputs."""


@dataclass(frozen=True)
class CountedLayer:
    """A layer with weights: `taps` weights tie an input channel to an output one, at each of `positions` of an image.

    A layer with `inputs` of 0 works on each channel by itself and has `taps` weights for each.
    """

    inputs: int
    outputs: int
    groups: int
    taps: int
    positions: int
    biases: int = 0

    @property
    def weights(self) -> int:
        """Number of weights, without biases."""
        return self.outputs * self.taps * (self.inputs // self.groups if self.inputs else 1)

    @property
    def parameters(self) -> int:
        """Number of weights and biases."""
        return self.weights + (self.outputs if self.biases else 0)

    @property
    def macs(self) -> int:
        """Multiplications of a weight with a value for one image; normalization is folded away in every runtime."""
        return self.weights * self.positions if self.inputs else 0

    def without(self, inputs: int, outputs: int) -> CountedLayer:
        """This layer after it lost so many channels."""
        if not self.inputs:
            return replace(self, outputs=self.outputs - outputs)
        if self.groups == self.inputs == self.outputs and self.groups > 1:  # depthwise
            left = self.outputs - max(inputs, outputs)
            return replace(self, inputs=left, outputs=left, groups=left)
        return replace(self, inputs=self.inputs - inputs, outputs=self.outputs - outputs)


@dataclass(frozen=True)
class NetworkCost:
    """For one image: multiply-accumulate operations; and parameters."""

    macs: int
    parameters: int


def layers_of(module: nn.Module, example: Tensor) -> dict[str, CountedLayer]:
    """What has weights in `module`, by name, and where it runs for `example`, float32 (1, 3, height, width).

    Products of two activations, as in attention, are not counted.
    """
    found: dict[str, CountedLayer] = {}

    def see(name: str, layer: nn.Module, given: Tensor, answer: object) -> None:
        seen = _layer(layer, given, answer if isinstance(answer, Tensor) else given)
        before = found.get(name)
        found[name] = seen if before is None else replace(seen, positions=seen.positions + before.positions)

    watch(module, example, see, [name for name, layer in module.named_modules() if _own_parameters(layer)])
    unseen = {  # their weights are used without calling them
        name: CountedLayer(0, 1, 1, count, 0)
        for name, layer in module.named_modules()
        if name not in found and (count := _own_parameters(layer))
    }
    return found | unseen


def lost_channels(groups: Iterable[ChannelGroup], removal: Removal) -> Lost:
    """What `removal` takes from each side of each layer."""
    lost: Counter[tuple[str, bool]] = Counter()
    for group in groups:
        units = len(removal.get(group.name, ())) // group.parts
        for side in group.sides:
            lost[side.layer, side.is_output] += units * side.per_unit
    return lost


def cost_of(layers: Mapping[str, CountedLayer], lost: Lost) -> NetworkCost:
    """The cost of the network when `lost` is gone."""
    left = [layer.without(lost.get((name, False), 0), lost.get((name, True), 0)) for name, layer in layers.items()]
    return NetworkCost(sum(layer.macs for layer in left), sum(layer.parameters for layer in left))


def _layer(layer: nn.Module, given: Tensor, answer: Tensor) -> CountedLayer:
    biases = 0 if getattr(layer, "bias", None) is None else 1
    if isinstance(layer, nn.modules.conv._ConvNd):  # noqa: SLF001 - the one base of all convolutions
        places = (given if layer.transposed else answer).shape[2:]
        taps = math.prod(layer.kernel_size)
        return CountedLayer(layer.in_channels, layer.out_channels, layer.groups, taps, math.prod(places), biases)
    if isinstance(layer, nn.Linear):
        return CountedLayer(layer.in_features, layer.out_features, 1, 1, math.prod(answer.shape[1:-1]), biases)
    count = _own_parameters(layer)
    if isinstance(layer, nn.MultiheadAttention):  # the projections of queries, keys and values
        return CountedLayer(1, 1, 1, count, given.shape[1 if layer.batch_first else 0])
    channels = max(parameter.shape[0] for parameter in layer.parameters(recurse=False))
    return CountedLayer(0, channels, 1, count // channels, 0)


def _own_parameters(layer: nn.Module) -> int:
    return sum(parameter.numel() for parameter in layer.parameters(recurse=False))
