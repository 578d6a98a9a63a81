"""What a file gives that ends at boxes. Light."""

from __future__ import annotations

from edgeopt_detection.decoding.description import BoxDecoding

FOUND = ("boxes", "classes", "scores", "count")
"""Outputs of a file that ends at boxes: what TFLite's operator gives, in its order and in every format.

Of n images float32 `boxes` (n, rows, 4) as y1, x1, y2, x2 in shares of the input's height and width, `classes` (n,
rows) and `scores` (n, rows), the best first, and how many rows of an image hold a box, `count` (n,); others are 0.
"""


def rows_of(decoding: BoxDecoding) -> int:
    """How many boxes a file has place for."""
    return min(decoding.most, decoding.anchors * decoding.classes)
