"""How far two programs with the same purpose disagree."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from edgeopt.networks.outputs import differences, tensors
from edgeopt.plugins import Classification, Task

_OF_CLASSES = Classification()


@dataclass(frozen=True)
class Agreement:
    """Two programs compared on the same batches.

    `max_logit_difference` is absolute; `logit_range` is the span of the reference's logits, to read it against; of
    several outputs both are those of the one that differs most. `top1` is how far the task has both agree on the
    `samples`: of a classifier the share on which both choose the same class. A NaN shows as NaN.
    """

    max_logit_difference: float
    logit_range: float
    top1: float
    samples: int

    @property
    def relative_difference(self) -> float:
        """The largest logit difference as a share of the logits' range."""
        return self.max_logit_difference / max(self.logit_range, 1e-12)


@torch.no_grad()
def compare(
    reference: Callable[[Tensor], Tensor | tuple[Tensor, ...]],
    candidate: Callable[[Tensor], Tensor | tuple[Tensor, ...]],
    batches: Iterable[Tensor],
    task: Task = _OF_CLASSES,
) -> Agreement:
    """Compare the outputs of `candidate` with those of `reference`, as numbers and as answers to `task`.

    Raises `ValueError` when `batches` is empty.
    """
    pairs = [(tensors(reference(batch)), tensors(candidate(batch))) for batch in batches]
    if not pairs:
        raise ValueError("there is no batch to compare two programs on")
    expected, got = ([torch.cat(parts) for parts in zip(*side, strict=True)] for side in zip(*pairs, strict=True))
    apart, span = max(differences(expected, got), key=_share)
    answers, wanted = (tuple(each.numpy() for each in side) for side in (got, expected))
    return Agreement(
        max_logit_difference=apart,
        logit_range=span,
        top1=task.agreement(answers, wanted),
        samples=len(expected[0]),
    )


def _share(apart: tuple[float, float]) -> float:
    share = apart[0] / apart[1]
    return float("inf") if math.isnan(share) else share
