"""The validation split, answered and scored: for the fit loop, and for whoever judges a network as it is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeopt.plugins import PassContext, Score, Task, TrainingData
from edgeopt_lightning.fit.data import Normalize, ordered_loader
from edgeopt_lightning.fit.devices import gather_rows, share_of_device

_BATCH_SIZE = 64


def validation_score(module: nn.Module, task: Task, context: PassContext, batch_size: int = _BATCH_SIZE) -> Score:
    """The score of a module in evaluation mode, on the device that it would train on; it ends on the CPU."""
    device = training_device(context)
    logits, labels = validation_logits(module.to(device), context.data, context, batch_size, device)
    module.to("cpu")
    return task.score(logits.numpy(), labels)


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


def is_guessing(score: Score, labels: NDArray[np.int64], classes: int) -> bool:
    """Whether a score may be that of random answers, or is one that naming the most frequent class reaches as well."""
    most_frequent = float(np.bincount(labels).max()) / len(labels)
    return score.value <= most_frequent or score.interval[0] <= 1 / classes
