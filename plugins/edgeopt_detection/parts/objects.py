"""The answers of the task `detection`. This module goes to devices as it is, with `box_decoder`: NumPy alone.

Light at the top.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeopt_detection.parts.box_decoder import Found


@dataclass(frozen=True)
class DetectedObject:
    """An object that an image was found to hold: corners x1, y1, x2, y2 in px of what the network sees."""

    label: int
    score: float
    corners: tuple[float, float, float, float]


@dataclass(frozen=True)
class DetectedObjects:
    """What one image was answered, the best first."""

    objects: tuple[DetectedObject, ...]


def answers(outputs: Sequence[Any], decision: Mapping[str, Any]) -> list[DetectedObjects]:
    """The objects of each image that an app shows, of raw heads or of a file that ends at boxes: see `found_boxes`.

    `decision` is that of a card: `decoding`, and `shown_score`, from which on a box is shown.
    """
    import numpy as np  # heavy; whoever has outputs has imported it

    from edgeopt_detection.parts.box_decoder import found_boxes

    decoding, shown_score = decision["decoding"], decision["shown_score"]
    below = float(np.nextafter(np.float32(shown_score), np.float32(-1)))  # "above" that is at least the score
    # boxes that are not shown are left out before boxes are compared: none of them can push out a better one
    found = found_boxes(outputs, {**decoding, "score_threshold": max(below, decoding["score_threshold"])})
    shown = [(each, each[2] >= np.float32(shown_score)) for each in found]  # boxes that a file gives are not chosen yet
    return objects_in((corners[good], labels[good], scores[good]) for (corners, labels, scores), good in shown)


def objects_in(found: Iterable[Found]) -> list[DetectedObjects]:
    """Corners, classes and scores of each image as objects."""
    return [
        DetectedObjects(
            tuple(
                DetectedObject(label, score, (x1, y1, x2, y2))
                for label, score, (x1, y1, x2, y2) in zip(
                    labels.tolist(), scores.tolist(), corners.tolist(), strict=True
                )
            )
        )
        for corners, labels, scores in found
    ]
