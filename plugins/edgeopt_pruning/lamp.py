"""A ranking over layers whose weights differ in size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def lamp_scores(importance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squares, each divided by the sum of itself and all that are larger, float (n,): the most important one has 1.

    The scale of a group does not matter, and none is emptied before all others.

    Source: J. Lee et al., "Layer-adaptive sparsity for the magnitude-based pruning", ICLR 2021.
    """
    order = np.argsort(importance, kind="stable")
    squares = np.square(importance[order], dtype=np.float64)
    sums = np.cumsum(squares[::-1])[::-1]
    scores = np.empty_like(squares)
    scores[order] = np.divide(squares, sums, out=np.zeros_like(squares), where=sums > 0)
    return scores
