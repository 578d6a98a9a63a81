"""What a model is for: its loss, its metric with an interval, and how a prediction is decoded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from edgeopt.tasks.base import Prediction, Score

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

    def decode(self, logits: Logits) -> list[Prediction]:
        """Label and softmax confidence of each row."""
        probabilities = softmax(logits)
        return [Prediction(int(row.argmax()), float(row.max())) for row in probabilities]


def wilson_interval(successes: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    if count == 0:
        return (0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / count
    center = share + z * z / (2 * count)
    margin = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return (max(0.0, (center - margin) / scale), min(1.0, (center + margin) / scale))


def softmax(logits: Logits) -> NDArray[np.float64]:
    """Row-wise softmax in float64, shape kept."""
    import numpy as np  # heavy; whoever has logits has imported it

    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))
