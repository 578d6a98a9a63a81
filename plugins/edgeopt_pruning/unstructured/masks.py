"""Which weights are zero: masks by magnitude, kept in the model while it trains.

A layer's mask is a buffer, bool in the shape of its weight, True where the weight is held at zero. As part of the
model's state it travels with checkpoints, averaged weights and other devices; it is taken out when the zeros are
permanent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from edgeopt.networks.layer_names import named
from edgeopt.plugins import NothingChangedError, Problem, UserError
from edgeopt_pruning.lamp import lamp_scores

DEPTHWISE = "depthwise"
BRANCHES = "branches"
_MASK = "weight_is_zero"
_PROBE_SIDE = 16  # px; larger than the kernels of common networks

PrunableLayer = nn.Conv2d | nn.Linear
Scope = Literal["global", "layer", "lamp"]
Share = float | Sequence[float]  # of zeros: the same for all layers, or one for each


@dataclass(frozen=True)
class Pattern:
    """Of each `of` consecutive inputs of an output, `kept` keep their weight: 2:4 keeps two of four.

    Inputs of a convolution are its input channels, at each place of the kernel by itself. Source: A. Mishra et al.,
    "Accelerating sparse deep neural networks", 2021.
    """

    kept: int
    of: int

    def __str__(self) -> str:
        return f"{self.kept}:{self.of}"

    def fits(self, weight: Tensor) -> bool:
        """Whether the inputs of a weight, (outputs, inputs, ...), divide into groups."""
        return weight.shape[1] % self.of == 0

    def groups(self, values: Tensor) -> Tensor:
        """Values of a weight's shape as (outputs, ..., groups, `of`)."""
        last = values.movedim(1, -1)
        return last.reshape(*last.shape[:-1], -1, self.of)

    def ungrouped(self, groups: Tensor) -> Tensor:
        """What `groups` was made of."""
        return groups.flatten(-2).movedim(-1, 1)

    def droppable(self, scores: Tensor) -> Tensor:
        """Which weights the pattern drops: all but the `kept` highest scores of each group; of equals, the first go."""
        groups = self.groups(scores)
        dropped = groups.argsort(dim=-1, stable=True)[..., : self.of - self.kept]
        return self.ungrouped(torch.zeros_like(groups, dtype=torch.bool).scatter(-1, dropped, value=True))


# ---- choosing zeros ------------------------------------------------------------------------------------------------


def smallest(values: Tensor, count: int) -> Tensor:
    """A mask, bool (n,), of exactly `count` smallest values of a vector; of equals, the first ones."""
    if count == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    limit = values.kthvalue(count).values
    mask = values < limit
    ties = (values == limit).nonzero().flatten()
    mask[ties[: count - int(mask.count_nonzero())]] = True
    return mask


@torch.no_grad()
def choose_zeros(
    weights: Sequence[Tensor], zeros: Sequence[Tensor], share: Share, scope: Scope, pattern: Pattern | None = None
) -> list[Tensor]:
    """Masks, bool in the weights' shapes, of the share of weights with the smallest magnitudes, to the nearest weight.

    `zeros` are the masks so far: what is zero stays zero. Magnitudes are ranked within each weight, over all weights,
    or over all by `lamp_scores`. With a pattern, only weights that it drops are chosen; `share` is at most what it
    drops.
    """
    scores = []
    for weight, mask in zip(weights, zeros, strict=True):
        magnitude = weight.abs().float().masked_fill(mask, -1.0)
        score = _lamp(weight) if scope == "lamp" else magnitude
        score = score.masked_fill(mask, -1.0)
        if pattern is not None:
            score = score.masked_fill(~pattern.droppable(magnitude), torch.inf)
        scores.append(score.flatten())
    counts = _counts(weights, share, scope)
    if scope == "layer":
        chosen = [smallest(score, count) for score, count in zip(scores, counts, strict=True)]
    else:
        chosen = list(torch.split(smallest(torch.cat(scores), *counts), [each.numel() for each in scores]))
    return [mask.view(weight.shape) for mask, weight in zip(chosen, weights, strict=True)]


def _lamp(weight: Tensor) -> Tensor:
    """Scores of a weight's shape, float32 on its device."""
    scores = lamp_scores(weight.detach().abs().flatten().cpu().double().numpy())
    return torch.from_numpy(scores).float().view(weight.shape).to(weight.device)


# ---- masks in a model ----------------------------------------------------------------------------------------------


def attach_masks(module: nn.Module, names: Iterable[str]) -> None:
    """Gives the layers masks in which nothing is zero yet."""
    for name in names:
        layer = module.get_submodule(name)
        layer.register_buffer(_MASK, torch.zeros_like(_weight(layer), dtype=torch.bool))


def detach_masks(module: nn.Module, names: Iterable[str]) -> None:
    """Takes the masks out; weights stay as they are."""
    for name in names:
        delattr(module.get_submodule(name), _MASK)


@torch.no_grad()
def hold_zeros(
    module: nn.Module, names: Sequence[str], share: Share, scope: Scope, pattern: Pattern | None = None
) -> None:
    """Grows the masks of the layers to a share, where they are below it, and sets what they cover to exactly 0."""
    layers = [module.get_submodule(name) for name in names]
    weights, masks = [_weight(layer) for layer in layers], [_mask(layer) for layer in layers]
    now = int(torch.stack([mask.count_nonzero() for mask in masks]).sum())
    if now < wanted_zeros(weights, share, scope):
        for mask, grown in zip(masks, choose_zeros(weights, masks, share, scope, pattern), strict=True):
            mask.copy_(grown)
    for weight, mask in zip(weights, masks, strict=True):
        weight.masked_fill_(mask, 0.0)


def weights_of(module: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """The layers' weights by name, without their gradients."""
    return {name: _weight(module.get_submodule(name)).detach() for name in names}


def wanted_zeros(weights: Sequence[Tensor], share: Share, scope: Scope) -> int:
    """How many zeros a share of the weights is."""
    return sum(_counts(weights, share, scope))


def _counts(weights: Sequence[Tensor], share: Share, scope: Scope) -> list[int]:
    """Zeros of each layer, or one number for all layers together."""
    sizes = [weight.numel() for weight in weights]
    if scope != "layer":
        assert isinstance(share, float | int)  # layers that are ranked together have no shares of their own
        return [round(share * sum(sizes))]
    shares = [share] * len(sizes) if isinstance(share, float | int) else share
    return [round(each * size) for each, size in zip(shares, sizes, strict=True)]


# ---- choosing layers -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """Names of the layers that are pruned, and of those that stay dense, each with the reason."""

    pruned: tuple[str, ...]
    dense: Mapping[str, str]


def choose_layers(
    module: nn.Module, protect: Sequence[str], pattern: Pattern | None = None, branches: Sequence[str] = ()
) -> Choice:
    """The convolutions and linear layers that are pruned.

    The first convolution and depthwise ones are among them, so that the share of zeros is that of all layers. `protect`
    takes layers out: names and patterns of modules, "depthwise", or "branches": those of `branches`, which are added to
    each other where the float model ends, so that their zeros would be filled or keep them from it. Biases and
    normalization are never pruned. Of layers that share a weight, the first one counts.

    Raises `NothingChangedError` when `protect` names nothing, and when no layer is left; `UserError` when it leaves
    branches to be pruned.
    """
    layers = dict(_layers(module))
    dense = {name: "computes its weight anew" for name, layer in layers.items() if not _uses_weight_as_it_is(layer)}
    if len(dense) == len(layers):
        raise NothingChangedError(
            "the model has no convolution or linear layer whose weights can be pruned", hint="leave out this pass"
        )
    candidates = {name: layer for name, layer in layers.items() if name not in dense}
    depthwise = [
        name
        for name, layer in candidates.items()
        if isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1
    ]
    fitting = named(candidates, protect, "protect", {DEPTHWISE: depthwise, BRANCHES: list(branches)})
    dense |= dict.fromkeys(set().union(*fitting.values()), "protected")
    if len(dense) == len(layers):
        message = f"protect names all {len(candidates)} layers that could be pruned"
        raise NothingChangedError(Problem(message, "protect fewer", option="protect"))
    if added := [name for name in candidates if name in branches and name not in dense]:
        raise UserError(_added_problem(added))
    if pattern is not None:
        unfit = [name for name, layer in layers.items() if name not in dense and not pattern.fits(layer.weight)]
        if len(dense) + len(unfit) == len(layers):
            message = f"pattern {pattern} fits no layer: it needs inputs in multiples of {pattern.of}"
            raise NothingChangedError(Problem(message, 'use pattern = "free"', option="pattern"))
        dense |= dict.fromkeys(unfit, f"inputs no multiple of {pattern.of}")
    return Choice(
        tuple(name for name in layers if name not in dense), {name: dense[name] for name in layers if name in dense}
    )


def _added_problem(names: Sequence[str]) -> Problem:
    named = ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")
    return Problem(
        f"{len(names)} layers ({named}) are branches that were trained side by side and become one layer in a file: "
        "its weights are sums, in which zeros of one branch are filled by another",
        'leave them dense with protect = ["branches"], or take whole channels away with prune-structured',
        option="protect",
    )


def _layers(module: nn.Module) -> Iterator[tuple[str, PrunableLayer]]:
    seen: dict[int, Tensor] = {}  # the tensors too, so that none computed later gets the id of one that has gone
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            weight = layer.weight
            if id(weight) not in seen:
                yield name, layer
            seen[id(weight)] = weight


@torch.no_grad()
def _uses_weight_as_it_is(layer: PrunableLayer) -> bool:
    """Whether a zero in the weight multiplies by zero: not so where a layer standardizes its weight before it uses it.

    It is found by a trial: in such a layer the output does not double when the weight does.
    """
    if not isinstance(layer.weight, nn.Parameter):
        return False
    if type(layer) in (nn.Conv2d, nn.Linear):
        return True
    shape = (layer.in_features,) if isinstance(layer, nn.Linear) else (layer.in_channels, _PROBE_SIDE, _PROBE_SIDE)
    inputs = torch.ones((1, *shape), dtype=layer.weight.dtype, device=layer.weight.device)
    ramp = torch.linspace(0.1, 1.0, layer.weight.numel()).to(layer.weight).view_as(layer.weight)
    bias = {} if layer.bias is None else {"bias": torch.zeros_like(layer.bias)}
    once, twice = (functional_call(layer, {"weight": factor * ramp, **bias}, (inputs,)) for factor in (1, 2))
    return torch.allclose(2 * once, twice, rtol=1e-3)


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight


def _mask(layer: nn.Module) -> Tensor:
    mask = getattr(layer, _MASK)
    assert isinstance(mask, Tensor)
    return mask
