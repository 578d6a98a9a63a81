"""Parts of a model that keep their weights while the rest trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgeopt.networks.heads import find_head
from edgeopt.networks.layer_names import places
from edgeopt.plugins import NothingChangedError, Problem, did_you_mean

BACKBONE = "backbone"


@dataclass(frozen=True)
class Frozen:
    """Names of the frozen parameters and layers, and the epoch, counted from 0, from which they train."""

    parameters: frozenset[str] = frozenset()
    layers: frozenset[str] = frozenset()
    until_epoch: int | None = None

    def apply(self, module: nn.Module, epoch: int) -> None:
        """Freezes or unfreezes a module in training mode; frozen BatchNorm layers keep their statistics too."""
        freeze = self.until_epoch is None or epoch < self.until_epoch
        for name, parameter in module.named_parameters():
            if name in self.parameters:
                parameter.requires_grad_(not freeze)
        for name, layer in module.named_modules():
            if freeze and name in self.layers and isinstance(layer, _BatchNorm):
                layer.eval()

    def release(self, module: nn.Module) -> None:
        """Lets everything train again, for whoever trains the module next."""
        for name, parameter in module.named_parameters():
            if name in self.parameters:
                parameter.requires_grad_(True)


def choose_frozen(
    module: nn.Module,
    patterns: Sequence[str],
    unfreeze_last: int = 0,
    until_epoch: int | None = None,
    *,
    classes: int | None = None,
) -> Frozen:
    """What `patterns` name: modules with all below them, or "backbone" for all but the part that gives the logits.

    That part is found by its `classes` outputs, wherever the model registered it.

    `unfreeze_last` takes the last layers with weights out again.

    Raises `NothingChangedError` for a pattern that fits nothing, and when nothing is left frozen, or to train.
    """
    weights = dict(_weights(module))
    known = sorted({place for name in weights for place in places(name)} - set(weights))
    chosen: set[str] = set()
    problems = []
    for pattern in patterns:
        fitting = set(_backbone(module, weights, classes)) if pattern == BACKBONE else set(_fitting(weights, pattern))
        if not fitting:
            problems.append(Problem(f"freeze: no part of the model is named {pattern!r}", _hint(pattern, known)))
        chosen |= fitting
    if problems:
        raise NothingChangedError(*problems)
    layers = list(dict.fromkeys(layer for name, layer in weights.items() if name in chosen))
    kept = set(layers[: max(0, len(layers) - unfreeze_last)])
    parameters = frozenset(name for name in chosen if weights[name] in kept)
    if not parameters:
        raise NothingChangedError(
            f"unfreeze_last = {unfreeze_last} leaves nothing frozen: freeze names {len(layers)} layers with weights",
            hint="lower unfreeze_last, or leave freeze out",
        )
    if len(parameters) == len(weights) and until_epoch is None:
        raise NothingChangedError(
            "freeze names all weights of the model, so training would change nothing",
            hint='freeze less, such as "backbone", or set unfreeze_last or unfreeze_epoch',
        )
    return Frozen(parameters, frozenset(kept), until_epoch)


def _weights(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of what can be frozen, each with the name of its layer.

    That is each parameter, and the running mean of BatchNorm layers that have no parameters.
    """
    for layer, each in module.named_modules():
        prefix = f"{layer}." if layer else ""
        for name, parameter in each.named_parameters(recurse=False):
            if parameter.requires_grad:
                yield prefix + name, layer
        if isinstance(each, _BatchNorm) and each.weight is None:
            yield prefix + "running_mean", layer


def _fitting(weights: dict[str, str], pattern: str) -> Iterator[str]:
    return (name for name in weights if any(fnmatchcase(place, pattern) for place in places(name)))


def _backbone(module: nn.Module, weights: dict[str, str], classes: int | None) -> Iterator[str]:
    """All weights but those of the part that gives the logits; a model that only wraps another is looked into.

    That part is the child that holds the head, the last layer with `classes` outputs. Without `classes`, or such a
    layer, it is the last child with weights.
    """
    prefix, inside = "", module
    while True:
        children = [name for name, child in inside.named_children() if any(True for _ in child.parameters())]
        own = any(True for _ in inside.parameters(recurse=False))
        if len(children) != 1 or own:
            break
        prefix, inside = f"{prefix}{children[0]}.", inside.get_submodule(children[0])
    last = children[-1] if children else ""
    if classes is not None and children:
        with suppress(ValueError):  # the head is a layer of another kind
            last = find_head(inside, classes).partition(".")[0] or last
    head = f"{prefix}{last}." if children else prefix
    return (name for name in weights if not name.startswith(head))


def _hint(pattern: str, known: list[str]) -> str:
    tops = [name for name in known if "." not in name]
    return did_you_mean(pattern, known) or "its parts: " + ", ".join(tops)
