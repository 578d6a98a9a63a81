"""From raw heads to boxes as the rest of edgeopt speaks of them; the arithmetic is `parts/box_decoder.py`'s."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeopt_detection.boxes import Detections
from edgeopt_detection.parts import box_decoder
from edgeopt_detection.parts.box_decoder import exponential

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from edgeopt_detection.decoding.description import BoxDecoding

__all__ = ["anchor_corners", "decode", "exponential"]


def decode(heads: Sequence[NDArray[np.float32]], decoding: BoxDecoding) -> list[Detections]:
    """The boxes of each image of a batch, in px of the file's input.

    `heads` are float32, in the order of `decoding.outputs`: class logits (n, anchors, columns), boxes (n, anchors, 4)
    and, where it is used, centerness (n, anchors, 1). Equally good boxes stand in the order of their anchors and
    classes, as found. A box or score that is no number is dropped.

    Raises `ValueError` for heads of another shape.
    """
    shapes = [head.shape[1:] for head in heads]
    wanted = [(decoding.anchors, width) for width in (decoding.columns, 4, 1)][: len(decoding.outputs)]
    if shapes != wanted:
        raise ValueError(f"raw heads are {shapes}, and the description is for {wanted}")
    return [Detections(*found) for found in box_decoder.found_boxes(heads, decoding.model_dump())]


def anchor_corners(decoding: BoxDecoding) -> NDArray[np.float64]:
    """Corners of all anchors in their order: float64 (anchors, 4)."""
    return box_decoder.anchor_corners(decoding.model_dump())
