"""Channels that can only go together.

A channel of a layer is read by others: a residual sum ties the channels of all its terms, a depthwise convolution hands
them on, a concatenation moves them. torch-pruning follows what hangs together (Fang et al., 2023,
https://arxiv.org/abs/2301.12900); here its groups become values, and channels are removed by name.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeopt_pruning._imports import OPTYPE, torch_pruning
from edgeopt_pruning.structured.attention import packed_attentions

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_CONVOLUTION = nn.modules.conv._ConvNd  # noqa: SLF001 - the common base has no public name
_WITH_CHANNELS = (nn.Linear, _CONVOLUTION, nn.MultiheadAttention)

Removal = Mapping[str, tuple[int, ...]]
"""Channels to remove, by the name of the group, counted as they stand before the removal."""


@dataclass(frozen=True)
class Side:
    """The inputs or the outputs of a layer, of which `per_unit` channels go with each unit of a group."""

    layer: str
    is_output: bool
    per_unit: int


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of several layers that go together, named after the layer that they are counted in.

    A unit is what can be removed alone: one channel, or where a grouped convolution reads them or they are the heads of
    attention, one of each of the `parts`. `shape` is the same for groups that tie the same kinds of layers in the same
    way.
    """

    name: str
    channels: int
    parts: int
    sides: tuple[Side, ...]
    shape: str

    @property
    def units(self) -> int:
        """How many units there are."""
        return self.channels // self.parts

    def channels_of(self, units: Sequence[int]) -> tuple[int, ...]:
        """The channels of `units`, in order."""
        return tuple(sorted(unit + part * self.units for part in range(self.parts) for unit in units))


class Dependencies:
    """A module, and which of its channels hang together. `remove` changes the module.

    `example` is a batch of inputs, float32 (n, channels, height, width).
    """

    def __init__(self, module: nn.Module, example: Tensor) -> None:
        self.module = module
        self._names = {each: name for name, each in module.named_modules()}
        self._attentions = packed_attentions(module)
        with _quiet(), torch.enable_grad():  # dependencies are read off the graph of gradients
            self._graph = torch_pruning.DependencyGraph().build_dependency(module.eval(), example)

    def groups(self) -> list[tuple[ChannelGroup, torch_pruning.Group]]:
        """The groups that can lose channels, each with torch-pruning's own, which its importance functions take.

        Left out are groups that are part of the model's answer, and groups that run through attention or through a
        parameter outside of any layer, where a channel does not stand for itself.
        """
        with _quiet():
            found = list(self._graph.get_all_groups())
        return [
            (group, each) for each in found if not self._is_fixed(each) and (group := self._group(each)) is not None
        ]

    def remove(self, removal: Removal) -> None:
        """Removes channels from all layers that they run through."""
        layers = dict(self.module.named_modules())
        for name, channels in removal.items():
            layer = layers[name]
            prune = self._graph.get_pruner_of_module(layer).prune_out_channels
            with _quiet():
                self._graph.get_pruning_group(layer, prune, list(channels)).prune()
            if layer in self._attentions:
                self._attentions[layer].settle()

    def _is_fixed(self, group: torch_pruning.Group) -> bool:
        for dependency, _ in group:
            target = dependency.target
            if not target.outputs and self._is_output(dependency):
                return True  # its channels are the model's answer
            if target.type == OPTYPE.PARAMETER or isinstance(target.module, nn.MultiheadAttention):
                return True
        return False

    def _group(self, group: torch_pruning.Group) -> ChannelGroup | None:
        root, channels = self._names[group[0].dep.target.module], len(group[0].idxs)
        parts = max(self._parts(dependency.target.module) for dependency, _ in group)
        if channels % parts or channels // parts < 2:
            return None
        sides, shape = [], []
        for dependency, indices in group:
            layer, is_output = dependency.target.module, self._is_output(dependency)
            shape.append(f"{type(layer).__name__}.{'out' if is_output else 'in'}")
            if is_output and isinstance(layer, _LAYERS) and len(indices) != layer.weight.shape[0]:
                return None  # as after pixels of a concatenation are flattened, where torch-pruning loses its way
            if (name := self._names.get(layer)) is not None:
                if len(indices) * parts % channels:
                    return None  # as where `qkv` is split in a way that is not known
                sides.append(Side(name, is_output, len(indices) * parts // channels))
        return ChannelGroup(root, channels, parts, tuple(sides), " ".join(shape))

    def _parts(self, layer: object) -> int:
        """How many equal parts the channels of `layer` are in, which must all lose as many."""
        attention = self._attentions.get(layer)  # type: ignore[call-overload]  # what is no module is in no dictionary
        return _parts(layer) if attention is None else attention.parts

    def _is_output(self, dependency: torch_pruning.dependency.Dependency) -> bool:
        return bool(self._graph.is_out_channel_pruning_fn(dependency.handler))


def watch(
    module: nn.Module, example: Tensor, see: Callable[[str, nn.Module, Tensor, object], None], names: Iterable[str]
) -> None:
    """Runs `module` on `example` in evaluation mode, and calls `see` at each call of one of the layers `names`.

    `see` gets the layer's name, the layer, its first input and its output.
    """
    hooks = [
        module.get_submodule(name).register_forward_hook(
            lambda layer, given, answer, name=name: see(name, layer, given[0], answer)
        )
        for name in names
    ]
    try:
        with torch.no_grad():
            module.eval()(example)
    finally:
        for hook in hooks:
            hook.remove()


def not_called(module: nn.Module, example: Tensor) -> list[str]:
    """Layers with channels whose weights are used, if at all, without calling them: they cannot be followed."""
    called: set[str] = set()
    layers = {name: each for name, each in module.named_modules() if isinstance(each, _WITH_CHANNELS)}
    watch(module, example, lambda name, *_: called.add(name), layers)
    inside = {
        part for name in called for part in layers[name].modules() if isinstance(layers[name], nn.MultiheadAttention)
    }
    return [
        name
        for name, each in layers.items()
        if name not in called and each not in inside and not isinstance(each, nn.MultiheadAttention)
    ]


def _parts(layer: object) -> int:
    """How many equal parts the channels of `layer` are in, which must all lose as many."""
    if isinstance(layer, nn.modules.conv._ConvNd):  # noqa: SLF001 - the one base of all convolutions
        return 1 if layer.groups == layer.out_channels == layer.in_channels else layer.groups
    return layer.num_groups if isinstance(layer, nn.GroupNorm) else 1


@contextmanager
def _quiet() -> Iterator[None]:
    """Within, torch-pruning does not warn of parameters outside of layers; groups with such parameters are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
