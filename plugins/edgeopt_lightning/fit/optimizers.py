"""Optimizers, and the learning rate over a training."""

from __future__ import annotations

import math
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from edgeopt_lightning.options import FitOptions

_ONE_CYCLE_WARMUP = 0.3


def make_optimizer(module: nn.Module, options: FitOptions, *, fused: bool) -> Optimizer:
    """AdamW or SGD over the parameters of `module`; weight decay for weights of two and more dimensions only.

    Source for AdamW: I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", ICLR 2019.
    """
    parameters = list(module.parameters())
    groups = [
        {"params": [each for each in parameters if each.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [each for each in parameters if each.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if options.optimizer == "sgd":
        return SGD(groups, lr=options.learning_rate, momentum=options.momentum, fused=fused)
    return AdamW(groups, lr=options.learning_rate, fused=fused)


class LearningRate:
    """The learning rate of `optimizer`: moved after each of its steps and, on a plateau, after an epoch.

    Source for one-cycle: L. N. Smith and N. Topin, "Super-convergence", 2018.
    """

    def __init__(self, optimizer: Optimizer, options: FitOptions, steps_per_epoch: int, epochs: int) -> None:
        self._optimizer = optimizer
        self._total = steps_per_epoch * epochs
        self._steps = 0
        self._warmup = self._warmup_steps(options, steps_per_epoch)
        self._by_step: LRScheduler
        if options.schedule == "one-cycle":
            self._by_step = OneCycleLR(
                optimizer,
                max_lr=[options.learning_rate] * len(optimizer.param_groups),
                total_steps=self._total,
                pct_start=self._warmup / self._total if self._warmup > 1 else 0.0,  # it cannot rise in one step
                cycle_momentum=options.optimizer == "adamw",  # sgd keeps the momentum that was asked for
            )
        else:
            self._by_step = LambdaLR(optimizer, lambda step: self._factor(step, options, steps_per_epoch))
        # a plateau takes over where the warm-up ends
        self._step_until = self._warmup + 1 if options.schedule == "plateau" else self._total
        self._by_epoch = (
            ReduceLROnPlateau(optimizer, factor=options.decay_factor, patience=options.plateau_patience)
            if options.schedule == "plateau"
            else None
        )
        held = options.averaging == "swa" and options.swa_learning_rate is not None
        self._held = options.swa_learning_rate
        self._held_from = swa_start_epoch(options, epochs) * steps_per_epoch if held else None
        self._hold()

    @property
    def value(self) -> float:
        """The learning rate of the next step."""
        return float(self._optimizer.param_groups[0]["lr"])

    def after_step(self) -> None:
        """The optimizer made a step."""
        self._steps += 1
        if self._steps < self._step_until:
            self._by_step.step()
        self._hold()

    def after_epoch(self, validation_loss: float) -> None:
        """An epoch ended with this loss on the validation split."""
        if self._by_epoch is not None and self._steps >= self._warmup:
            self._by_epoch.step(validation_loss)

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed training needs; the learning rates themselves are in the optimizer's state."""
        by_epoch = self._by_epoch.state_dict() if self._by_epoch else None
        return {"steps": self._steps, "by_step": self._by_step.state_dict(), "by_epoch": by_epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave."""
        self._steps = state["steps"]
        self._by_step.load_state_dict(state["by_step"])
        if self._by_epoch:
            self._by_epoch.load_state_dict(state["by_epoch"])

    def _warmup_steps(self, options: FitOptions, steps_per_epoch: int) -> int:
        if options.warmup_epochs is not None:
            # a smoke run may have fewer epochs than the warm-up
            return min(round(options.warmup_epochs * steps_per_epoch), self._total - 1)
        return round(_ONE_CYCLE_WARMUP * self._total) if options.schedule == "one-cycle" else 0

    def _factor(self, step: int, options: FitOptions, steps_per_epoch: int) -> float:
        """What the learning rate is multiplied by in step `step`, counted from 0."""
        if step < self._warmup:
            return (step + 1) / (self._warmup + 1)
        if options.schedule == "cosine":
            done = (step - self._warmup) / max(1, self._total - 1 - self._warmup)
            least = options.final_learning_rate / options.learning_rate
            return least + (1 - least) * (1 + math.cos(math.pi * done)) / 2
        if options.schedule == "step":
            return float(options.decay_factor ** (step // steps_per_epoch // options.decay_epochs))
        return 1.0

    def _hold(self) -> None:
        if self._held_from is not None and self._steps >= self._held_from:
            for group in self._optimizer.param_groups:
                group["lr"] = self._held


def swa_start_epoch(options: FitOptions, epochs: int) -> int:
    """The first epoch, counted from 0, whose weights SWA averages; at least the last one is."""
    return min(math.ceil(options.swa_start * epochs), epochs - 1)
