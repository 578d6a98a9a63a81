"""How far two programs with the same purpose disagree."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Agreement:
    """Two programs compared on the same batches.

    `max_logit_difference` is absolute; `logit_range` is the span of the reference's logits, to read it against;
    `top1` is the share of the `samples` on which both choose the same class. A NaN in either shows as NaN.
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
    reference: Callable[[Tensor], Tensor], candidate: Callable[[Tensor], Tensor], batches: Iterable[Tensor]
) -> Agreement:
    """Compare the logits, float32 (n, classes), of `candidate` with those of `reference` on `batches`.

    Raises `ValueError` when `batches` is empty.
    """
    pairs = [(reference(batch), candidate(batch)) for batch in batches]
    if not pairs:
        raise ValueError("there is no batch to compare two programs on")
    expected, got = (torch.cat(side) for side in zip(*pairs, strict=True))
    return Agreement(
        max_logit_difference=(expected - got).abs().max().item(),
        logit_range=(expected.max() - expected.min()).item(),
        top1=(expected.argmax(-1) == got.argmax(-1)).double().mean().item(),
        samples=len(expected),
    )
