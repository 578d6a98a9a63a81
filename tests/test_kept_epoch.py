"""Which epoch a training keeps, whatever framework trains."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from edgeopt.plugins import epoch_rank, prefers_epoch

NAN = math.nan


def kept(scores: Sequence[float], losses: Sequence[float], error: float, *, settles: bool) -> int:
    """The place of the epoch that is kept in the end."""
    best, least = 0, -math.inf
    ranks = [epoch_rank(*each) for each in zip(scores, losses, strict=True)]
    for place, (score, _) in enumerate(ranks):
        least = max(least, score - error)
        if prefers_epoch(ranks[place], ranks[best] if place else None, least, settles=settles):
            best = place
    return best


@pytest.mark.parametrize(
    ("scores", "losses", "settles", "place"),
    [
        ([0.2, 0.8, 0.75, 0.72], [1, 1, 1, 1], True, 2),  # the last within an error of 0.06 of the best
        ([0.2, 0.8, 0.75, 0.72], [1, 1, 1, 1], False, 1),
        ([0.2, 0.8, 0.75, 0.745], [1, 1, 1, NAN], True, 2),  # broken at the end, and not kept for coming last
        ([0.5, 0.5, 0.5], [0.4, 0.2, 0.3], False, 1),  # of equal scores the lower loss
        ([0.5, 0.5], [NAN, 0.9], False, 1),
        ([-3.0, -1.0, -1.04], [1, 1, 1], True, 2),  # of a score of which less is better
        ([0.1], [NAN], True, 0),  # one there must be
    ],
)
def test_the_epoch_that_is_kept(scores: list[float], losses: list[float], settles: bool, place: int) -> None:
    assert kept(scores, losses, 0.06, settles=settles) == place
