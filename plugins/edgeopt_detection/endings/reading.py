"""Boxes as a file gives them that ends at boxes: read, and laid beside those of its program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeopt_detection.boxes import Detections, overlaps
from edgeopt_detection.decoding.description import BoxDecoding
from edgeopt_detection.parts import box_decoder
from edgeopt_detection.scores.agreement import SAME_OVERLAP

if TYPE_CHECKING:
    from edgeopt.plugins import Outputs

_X_FIRST = [1, 0, 3, 2]  # from y1, x1, y2, x2 to corners, and back


def boxes_in(outputs: Outputs, decoding: BoxDecoding) -> list[Detections]:
    """The boxes of each image in px of the file's input; `outputs` are `FOUND` of `endings.outputs`."""
    return [Detections(*found) for found in box_decoder.found_boxes(outputs, decoding.model_dump())]


def likened(
    outputs: Outputs, own: Sequence[Detections], others: Sequence[Detections], size: tuple[int, int]
) -> Outputs:
    """`others`, such as the boxes of a program, in the form of `outputs`, what a file gave: each box in the place of
    the file's, `own`, that is the same, of its class and nearly its place. Where there is none, the file's own stands:
    how many are the same is told by their agreement, and numbers say how far those are apart.
    """
    boxes, classes, scores, count = (np.array(each) for each in outputs)
    height, width = size
    limits = np.array([height, width, height, width], np.float32)
    for image, (mine, theirs) in enumerate(zip(own, others, strict=True)):
        count[image] = len(theirs)
        for place, other in _pairs(mine, theirs):
            boxes[image, place] = theirs.corners[other][_X_FIRST] / limits
            scores[image, place] = theirs.scores[other]
    return boxes, classes, scores, count


def _pairs(some: Detections, others: Detections) -> list[tuple[int, int]]:
    """Places of boxes that are the same: each, the best first, with the one of the others that it overlaps most."""
    shares = overlaps(some.corners, others.corners) * (some.classes[:, None] == others.classes[None])
    found = []
    for place in range(len(some)):
        if not shares.shape[1]:
            break
        other = int(shares[place].argmax())
        if shares[place, other] >= SAME_OVERLAP:
            found.append((place, other))
            shares[:, other] = 0
    return found
