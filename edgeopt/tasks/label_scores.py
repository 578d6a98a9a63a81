"""Figures of one label among several, from its confidences: average precision, F1, and the threshold that suits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Ranked:
    """The images of a label from the most confident one to the least: `order`, int64 (n,), whether each has it, bool
    (n,), and where runs of equal confidence end, int64 (k,).
    """

    order: NDArray[np.int64]
    truth: NDArray[np.bool_]
    ends: NDArray[np.int64]
    values: NDArray[np.float64]


def ranked(values: NDArray[np.float64], truth: NDArray[np.bool_]) -> Ranked:
    """Ranks images by `values`, float (n,)."""
    import numpy as np  # heavy; whoever has answers has imported it

    order = np.argsort(-values, kind="stable")
    sorted_values = values[order]
    ends = np.append(np.flatnonzero(np.diff(sorted_values)), len(values) - 1)
    return Ranked(order, truth[order], ends, sorted_values)


def average_precision(label: Ranked, counts: NDArray[np.int64] | None = None) -> float:
    """The mean of the precisions at which each image with the label is found, 0 to 1; NaN where none has it.

    `counts`, int64 (n,), says how often each image counts, once where it is left out. Images of equal confidence are
    found together. Source: M. Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective", IJCV
    2015, without interpolation, as scikit-learn has it.
    """
    import numpy as np  # as above

    weights = np.ones(len(label.order)) if counts is None else counts[label.order].astype(np.float64)
    found = np.cumsum(weights * label.truth)[label.ends]
    seen = np.cumsum(weights)[label.ends]
    if not len(found) or found[-1] == 0:
        return float("nan")
    gained = np.diff(found, prepend=0.0)
    return float((gained * found / np.maximum(seen, 1.0)).sum() / found[-1])


def best_threshold(label: Ranked, otherwise: float) -> float:
    """The value from which on the label is told with the best F1, between two that occur; of several, the one in the
    middle of the widest gap. `otherwise` where no image has the label, or all have.
    """
    import numpy as np  # as above

    if not label.truth.any() or label.truth.all():
        return otherwise
    found = np.cumsum(label.truth)[label.ends]
    f1 = 2 * found / (label.ends + 1 + found[-1])
    above = label.values[label.ends]
    below = np.append(label.values[label.ends[:-1] + 1], above[-1] - 2.0)
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    widest = best[np.argmax((above - below)[best])]
    return float((above[widest] + below[widest]) / 2)


def f1_of(told: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """F1 of each column, float64 (labels,), of bool (n, labels): NaN where a label neither occurs nor is told."""
    import numpy as np  # as above

    both, either = (told & truth).sum(axis=0), told.sum(axis=0) + truth.sum(axis=0)
    return np.where(either > 0, 2 * both / np.maximum(either, 1), np.nan)
