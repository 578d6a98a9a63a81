"""What a training may be told to do differently, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from edgeopt.plugins import Curve, Json


def set_module_training(module: nn.Module, training: bool) -> None:
    """`module.train()` or `module.eval()`."""
    module.train(training)


@dataclass(frozen=True)
class FitHooks:
    """What a pass does differently.

    - `before_epoch(module, epoch)` runs when the module is in training mode for `epoch`, counted from 0. It depends on
      the epoch alone: a resumed training calls it for the epochs that are left. It may freeze parameters and layers.
    - `scored(module)` gives the function, float32 inputs to outputs, whose validation score selects the epoch: by
      default the module itself, or its averaged weights, in evaluation mode.
    - `set_training(module, training)` switches modes: graphs of `torch.export` have no `train()` and `eval()`.
    - `loss(inputs, outputs, batch)` replaces the task's loss: the network's outputs as a tuple, and the targets.
    - `constrain(module, epochs)` holds in place what the weights must keep, such as zeros. It runs before the first
      step of an epoch, after every step, and on averaged weights before they are scored. `epochs` says how many epochs
      are done, as a fraction that grows with each step of the optimizer: 2.25 after a quarter of the third epoch. It
      depends on the module's state and on `epochs` alone, so that a resumed training goes on alike. What it must
      remember it keeps in buffers, which are part of checkpoints and averages.
    - `first_epoch` is the first, counted from 0, that may be selected; at least the last one may.
    - `reestimate_batch_norm` collects BatchNorm statistics anew for averaged weights and at the end.
    """

    before_epoch: Callable[[nn.Module, int], None] | None = None
    scored: Callable[[nn.Module], Callable[[Tensor], Any]] | None = None
    set_training: Callable[[nn.Module, bool], None] = set_module_training
    loss: Callable[[Tensor, tuple[Tensor, ...], Any], Tensor] | None = None
    constrain: Callable[[nn.Module, float], None] | None = None
    first_epoch: int = 0
    reestimate_batch_norm: bool = True


@dataclass(frozen=True)
class FitResult:
    """What a training came to; epochs count from 1. `facts`, `curves` and `warnings` are for the pass's record.

    `best_score` is the task's metric on the validation split, on so many `images` of it, of the weights that the
    module was left with.
    """

    best_epoch: int
    best_score: float
    best_loss: float
    images: int
    epochs_run: int
    stopped: str
    curves: tuple[Curve, ...]
    facts: dict[str, Json]
    warnings: tuple[str, ...] = ()
