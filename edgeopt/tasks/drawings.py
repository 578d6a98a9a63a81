"""What a page draws of an answer, and what the API tells of it: words, labels, boxes, a mask. Light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class DrawnLabel:
    """A label: the place of its class, its confidence, and from which confidence on it is told, each 0 to 1."""

    label: int
    confidence: float
    threshold: float


@dataclass(frozen=True)
class DrawnBox:
    """A box: the place of its class, its score, 0 to 1, and corners x1, y1, x2, y2 in px of what the network sees."""

    label: int
    score: float
    corners: tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Drawing:
    """One answer. `words` tell it; `labels`, `boxes` and `mask` are None where a task has none of the kind.

    `labels` are all of them, `boxes` those below `shown_score` too, which are not told and which a page shows by its
    slider. `mask` is integers (height, width), places of classes, over the whole of what the network sees.
    """

    words: str
    labels: tuple[DrawnLabel, ...] | None = None
    boxes: tuple[DrawnBox, ...] | None = None
    shown_score: float = 0.0
    mask: NDArray[Any] | None = None
