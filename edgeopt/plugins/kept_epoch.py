"""Which of its epochs a training keeps.

Of few validation images the best of many epochs is often a lucky one, long before the learning rate has come down. So
where a schedule brings it down to the end, the last epoch is kept of those that cannot be told from the best: no more
than one standard error of its score below it (the one-standard-error rule of L. Breiman et al., "Classification and
Regression Trees", 1984, section 3.4.3, which takes the simplest of equals). Elsewhere, and where `patience` asks to go
back to the best, it is the best.
"""

from __future__ import annotations

import math


def epoch_rank(score: float, loss: float) -> tuple[float, float]:
    """How an epoch validated, larger is better: by its score, of which larger is better, and then by its loss."""
    return score, -loss if math.isfinite(loss) else -math.inf


def prefers_epoch(
    rank: tuple[float, float], best: tuple[float, float] | None, least_score: float, *, settles: bool
) -> bool:
    """Whether an epoch is rather to be kept than the `best` before it, if there is one.

    `least_score` is the largest of all scores less their standard errors, this epoch's among them; `settles` says that
    the learning rate comes down to the end. An epoch whose loss is not finite is no better for being the last.
    """
    if best is None:
        return True
    if settles and math.isfinite(rank[1]):
        return rank[0] >= least_score
    return rank > best
