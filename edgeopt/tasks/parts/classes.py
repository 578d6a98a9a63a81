"""The answers of the task `classification`. This module goes to devices as it is: the standard library and NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Prediction:
    """What one image was taken for."""

    label: int
    confidence: float


def answers(outputs: Sequence[Any], decision: Mapping[str, Any]) -> list[Prediction]:
    """Label and softmax confidence of each image, of float logits (n, classes).

    `decision` is that of a card: `temperature`, where one was chosen.
    """
    shares = softmax(outputs[0], float(decision.get("temperature", 1.0)))
    return [Prediction(int(row.argmax()), float(row.max())) for row in shares]


def softmax(logits: NDArray[Any], temperature: float = 1.0) -> NDArray[np.float64]:
    """Softmax of logits (n, classes) divided by a temperature, float64, shape kept."""
    import numpy as np  # heavy; whoever has logits has imported it

    softened = logits if temperature == 1.0 else logits / temperature
    powers = np.exp(softened.astype(np.float64) - softened.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares
