"""How the share of zeros grows while a model trains."""

from __future__ import annotations

import math
from dataclasses import dataclass

_JUMPS = 100  # ranking all weights costs up to a training step, so masks change no more often than this


@dataclass(frozen=True)
class SparsitySchedule:
    """The share of zeros over a training, from `initial` at the epoch `begin` to `final` at the epoch `end`.

    Epochs count what is done and may be fractions. Before `begin` nothing is pruned; where `begin` is `end`, all at
    once.

    Source of the cubic curve: M. Zhu and S. Gupta, "To prune, or not to prune: exploring the efficacy of pruning for
    model compression", 2017.
    """

    final: float
    initial: float
    begin: float
    end: float

    def at(self, epochs: float) -> float:
        """The share of zeros when so many epochs are done; it never falls, and grows in at most 100 jumps."""
        if epochs < self.begin:
            return 0.0
        if epochs >= self.end:
            return self.final
        left = 1 - math.floor((epochs - self.begin) / (self.end - self.begin) * _JUMPS) / _JUMPS
        return self.final + (self.initial - self.final) * left**3

    @property
    def first_full_epoch(self) -> int:
        """The first epoch, counted from 0, that ends with all zeros in place."""
        return max(0, math.ceil(self.end) - 1)
