"""From outputs to angles. This module goes to devices as it is: it imports the standard library and NumPy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Answer:
    """An angle in degrees, 0 to 180."""

    degrees: float


def answers(outputs: Sequence[Any], _decision: Mapping[str, Any]) -> list[Answer]:
    """The angle of each image; the card's decision says nothing more."""
    return [Answer(float(degrees)) for degrees in angles(outputs)]


def angles(outputs: Sequence[Any]) -> NDArray[np.float64]:
    """Degrees from 0 to 180, float (n,), that outputs stand for."""
    import numpy as np

    cosine, sine = outputs[0].astype(np.float64).T
    degrees: NDArray[np.float64] = np.degrees(np.arctan2(sine, cosine)) / 2 % 180.0
    return degrees
