"""The validation split, answered and scored: for the fit loop, and for whoever judges a network as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeopt.plugins import Guess, PassContext, Score, Task, TrainingData
from edgeopt_lightning.fit.data import Normalize, ordered_loader
from edgeopt_lightning.fit.devices import gather_rows, share_of_device

_BATCH_SIZE = 64


@dataclass(frozen=True)
class Validated:
    """How a network answers the validation split, in evaluation mode: its loss and score, and in what way it guesses,
    if it does.
    """

    loss: float
    score: Score
    guess: Guess | None


def validated(module: nn.Module, task: Task, context: PassContext, batch_size: int = _BATCH_SIZE) -> Validated:
    """Judges a module as it is, on the device that it would train on; it ends on the CPU."""
    device = training_device(context)
    logits, labels = validation_logits(module.to(device), context.data, context, batch_size, device)
    module.to("cpu")
    answers = logits.numpy()
    return Validated(
        float(task.loss((logits,), task.batch(labels))),
        task.score((answers,), labels),
        task.guess((answers,), labels, context.data.classes),
    )


def validation_score(module: nn.Module, task: Task, context: PassContext, batch_size: int = _BATCH_SIZE) -> Score:
    """The score of a module in evaluation mode, on the device that it would train on; it ends on the CPU."""
    return validated(module, task, context, batch_size).score


def training_device(context: PassContext) -> torch.device:
    """The device that a module would train on."""
    use_gpu = context.trainer.accelerator in ("auto", "gpu") and torch.cuda.is_available()
    return torch.device("cuda" if use_gpu else "cpu")


@torch.no_grad()
def validation_logits(
    function: Callable[[Tensor], Tensor],
    data: TrainingData,
    context: PassContext,
    batch_size: int,
    device: torch.device,
) -> tuple[Tensor, NDArray[np.int64]]:
    """What `function` answers, float32 (n, classes) on the CPU, and the labels, int64 (n,).

    A smoke run has fewer batches of validation images. With several devices each takes a part, and all get the whole.
    """
    split, settings = data.validation, context.trainer
    count = validation_images(data, context, batch_size)
    mine = share_of_device(count)
    normalize = Normalize(data.preprocessing, settings.channels_last)
    batches = ordered_loader(split, mine, batch_size, settings.loader_workers)
    logits = [function(normalize(pixels.to(device))).float().cpu() for pixels, _ in batches]
    return gather_rows(logits, mine, count), split.labels[:count]


def validation_images(data: TrainingData, context: PassContext, batch_size: int) -> int:
    """How many images are validated on: in a smoke run no more than its batches hold."""
    bound = context.budget.batches
    return context.budget.of(None if bound is None else bound * batch_size, len(data.validation))
