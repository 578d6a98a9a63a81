"""What a model is for: its loss, its metric with an interval, and how a prediction is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeopt.tasks.base import Prediction, Score
from edgeopt.tasks.statistics import Paired, paired, wilson_interval

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from edgeopt.arrays import Labels, Logits


@dataclass(frozen=True)
class Classification:
    """One label an image: cross-entropy, top-1 accuracy with a Wilson interval, softmax confidence."""

    name: str = "classification"
    metric: str = "accuracy"

    def loss(self, logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
        """Cross-entropy, mean over the batch; logits float (n, classes), labels int64 (n,)."""
        from torch.nn.functional import cross_entropy  # torch is heavy; whoever has a tensor has imported it

        return cross_entropy(logits, labels, label_smoothing=label_smoothing)

    def score(self, logits: Logits, labels: Labels) -> Score:
        """Top-1 accuracy of float logits (n, classes) against int64 labels (n,)."""
        correct = int((logits.argmax(axis=1) == labels).sum())
        return Score(correct / len(labels), wilson_interval(correct, len(labels)), len(labels))

    def agreement(self, logits: Logits, reference: Logits) -> float:
        """Share of images with the same top-1 label."""
        return float((logits.argmax(axis=1) == reference.argmax(axis=1)).mean())

    def near_ties(self, logits: Logits, reference: Logits, margin: float) -> int:
        """Images with another top-1 label whose reference logits of the two labels differ by no more than `margin`."""
        own, other = reference.argmax(axis=1), logits.argmax(axis=1)
        images = (own != other).nonzero()[0]
        return int((reference[images, own[images]] - reference[images, other[images]] <= margin).sum())

    def compare(self, before: Logits, after: Logits, labels: Labels) -> Paired:
        """Counts the images whose top-1 answer was right in `before` alone, and in `after` alone."""
        right_before, right_after = before.argmax(axis=1) == labels, after.argmax(axis=1) == labels
        lost, gained = int((right_before & ~right_after).sum()), int((~right_before & right_after).sum())
        return paired(len(labels), lost, gained)

    def decode(self, logits: Logits) -> list[Prediction]:
        """Label and softmax confidence of each row."""
        probabilities = softmax(logits)
        return [Prediction(int(row.argmax()), float(row.max())) for row in probabilities]


def softmax(logits: Logits) -> NDArray[np.float64]:
    """Row-wise softmax in float64, shape kept."""
    import numpy as np  # heavy; whoever has logits has imported it

    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))
