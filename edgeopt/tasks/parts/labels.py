"""The answers of the task `multi-label`. This module goes to devices as it is: the standard library and NumPy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HALF = 0.5
"""From which confidence on a label is told where nothing was chosen for it."""


@dataclass(frozen=True)
class Labelled:
    """What one image was taken for: places of labels, and the confidence of each."""

    labels: tuple[int, ...]
    confidences: tuple[float, ...]


def answers(outputs: Sequence[Any], decision: Mapping[str, Any]) -> list[Labelled]:
    """The labels of each image, the most confident first, of float logits (n, classes).

    `decision` is that of a card: `thresholds`, one for each class, where some were chosen.
    """
    logits = outputs[0]
    told = logits >= threshold_logits(decision.get("thresholds", ()), logits.shape[1])
    found = []
    for row, has in zip(confidences(logits), told, strict=True):
        places = sorted(has.nonzero()[0].tolist(), key=lambda place: -row[place])
        found.append(Labelled(tuple(places), tuple(float(row[place]) for place in places)))
    return found


def confidences(logits: NDArray[Any]) -> NDArray[np.float64]:
    """The sigmoid of each logit, float64 (n, classes)."""
    import numpy as np  # heavy; whoever has logits has imported it

    found: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
    return found


def threshold_logits(thresholds: Sequence[float], classes: int) -> NDArray[np.float64]:
    """Thresholds, confidences of so many classes or none, as logits: float64 (classes,)."""
    import numpy as np  # as above

    return np.array([math.log(each / (1.0 - each)) for each in thresholds or (HALF,) * classes])
