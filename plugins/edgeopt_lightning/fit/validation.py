"""The validation split, answered and scored: for the fit loop, and for whoever judges a network as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edgeopt.networks.logits import in_training
from edgeopt.plugins import Guess, PassContext, Score, Task, TrainingData, TrainingError, targets_of
from edgeopt_lightning.fit.data import Normalize, ordered_loader
from edgeopt_lightning.fit.devices import gather_rows, share_of_device

if TYPE_CHECKING:
    from edgeopt.plugins import Outputs

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
    outputs, targets = validation_outputs(module.to(device), task, context, batch_size, device)
    module.to("cpu")
    answers = in_numpy(outputs)
    return Validated(
        float(task.loss(outputs, task.batch(targets))),
        task.score(answers, targets),
        task.guess(answers, targets, context.data.classes),
    )


def validation_score(module: nn.Module, task: Task, context: PassContext, batch_size: int = _BATCH_SIZE) -> Score:
    """The score of a module in evaluation mode, on the device that it would train on; it ends on the CPU."""
    return validated(module, task, context, batch_size).score


def training_device(context: PassContext) -> torch.device:
    """The device that a module would train on."""
    use_gpu = context.trainer.accelerator in ("auto", "gpu") and torch.cuda.is_available()
    return torch.device("cuda" if use_gpu else "cpu")


def outputs_of(answer: Any) -> tuple[Tensor, ...]:
    """What a network returned as a tuple of tensors: one tensor, a tuple or list of them, or the values of a mapping.

    Raises `TypeError` for anything else.
    """
    parts = (
        (answer,) if isinstance(answer, Tensor) else tuple(answer.values() if isinstance(answer, Mapping) else answer)
    )
    if not all(isinstance(each, Tensor) for each in parts):
        raise TypeError(f"a network returned {type(answer).__name__}, which holds more than tensors")
    return parts


def several_outputs(module: nn.Module, task: Task, answer: Any, images: int) -> tuple[Tensor, ...]:
    """The outputs of a network that returned no single tensor for so many images in training.

    Raises `TrainingError` for what the task cannot take, such as outputs that some networks give in training alone.
    """
    try:
        outputs = outputs_of(answer)
    except TypeError:
        outputs = ()
    if task.unfit([tuple(each.shape) for each in outputs], images, None):
        raise TrainingError(in_training(module, answer, images))
    return outputs


def in_numpy(outputs: tuple[Tensor, ...]) -> Outputs:
    """Outputs on the CPU as arrays."""
    return tuple(each.numpy() for each in outputs)


@torch.no_grad()
def validation_outputs(
    function: Callable[[Tensor], Any],
    task: Task,
    context: PassContext,
    batch_size: int,
    device: torch.device,
) -> tuple[tuple[Tensor, ...], Any]:
    """What `function` answers, float32 on the CPU with a row an image in each output, and the targets of these images.

    A smoke run has fewer batches of validation images. With several devices each takes a part, and all get the whole.
    """
    data = context.data
    split, settings = data.validation, context.trainer
    count = validation_images(data, context, batch_size)
    mine = share_of_device(count)
    normalize = Normalize(data.preprocessing, settings.channels_last)
    batches = ordered_loader(split, task, mine, batch_size, settings.loader_workers)
    answers = [
        [each.float().cpu() for each in outputs_of(function(normalize(pixels.to(device))))] for pixels, _ in batches
    ]
    outputs = tuple(gather_rows(parts, mine, count) for parts in zip(*answers, strict=True))
    return outputs, targets_of(split)[:count]


def validation_images(data: TrainingData, context: PassContext, batch_size: int) -> int:
    """How many images are validated on: in a smoke run no more than its batches hold."""
    bound = context.budget.batches
    return context.budget.of(None if bound is None else bound * batch_size, len(data.validation))
