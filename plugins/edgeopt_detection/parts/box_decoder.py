"""From raw heads to boxes, as every other language does it: the order of each operation is part of the definition.

All arithmetic is in 64 bits, of addition, subtraction, multiplication, division, square root and rounding down alone,
which IEEE 754 defines to the last bit; the exponential is made of these (`exponential`). What is compared is first
rounded to 32 bits: scores, and the corners of boxes. So `decoding.js` and `BoxDecoder.kt` give the same bits, which a
test holds. Torch computes in 32 bits and with its own exponential: its scores differ in their last bits, and where two
boxes are nearly as good as each other, so may their order.

This file goes to boards as it is: NumPy alone, and Python 3.8. `decoding` is that of a card, as JSON is read.
"""

from __future__ import annotations

from typing import Any, Iterator, List, Mapping, Sequence, Tuple

import numpy as np

Found = Tuple[np.ndarray, np.ndarray, np.ndarray]
"""Of one image: float32 corners (n, 4) as x1, y1, x2, y2, int64 classes (n,) and float32 scores (n,), best first."""

_BLOCK = 64  # boxes whose overlaps with all others are computed at once
OUTPUTS_OF_BOXES = 4
"""What a file gives that ends at boxes: boxes, classes, scores and how many there are. Raw heads are two or three."""

_LARGEST_EXPONENT = 708.0  # beyond it either way, an exponential is no normal number of 64 bits
_LOG2_E = 1.4426950408889634
_LN_2_HIGH = 0.6931471803691238  # 32 bits, so that its multiples are exact
_LN_2_LOW = 1.9082149292705877e-10
#: 1/13! … 1/0!, for arguments of up to half of ln 2: the next term is below a tenth of the last bit.
_TAYLOR = (
    1.6059043836821613e-10,
    2.08767569878681e-09,
    2.505210838544172e-08,
    2.755731922398589e-07,
    2.7557319223985893e-06,
    2.48015873015873e-05,
    0.0001984126984126984,
    0.001388888888888889,
    0.008333333333333333,
    0.041666666666666664,
    0.16666666666666666,
    0.5,
    1.0,
    1.0,
)


def found_boxes(heads: Sequence[np.ndarray], decoding: Mapping[str, Any]) -> List[Found]:
    """The boxes of each image of a batch, in px of the file's input.

    `heads` are float32: class logits (n, anchors, columns), boxes (n, anchors, 4) and, where scores are
    "sigmoid-centerness", centerness (n, anchors, 1). Equally good boxes stand in the order of their anchors and
    classes, as found. A box or score that is no number is dropped.

    A file that ends at boxes gives four arrays, which are read: see `read_boxes`.
    """
    if len(heads) == OUTPUTS_OF_BOXES:
        return [read_boxes([head[image] for head in heads], decoding) for image in range(len(heads[0]))]
    corners = anchor_corners(decoding)
    return [_decode_image([head[image] for head in heads], corners, decoding) for image in range(len(heads[0]))]


def read_boxes(given: Sequence[Any], decoding: Mapping[str, Any]) -> Found:
    """The boxes of one image in px of the file's input, cut at its borders, of what a file gives that ends at boxes.

    That is float32 boxes (rows, 4) as y1, x1, y2, x2 in shares of the input's height and width, their classes and
    scores (rows,), best first, and how many rows hold one. What is no number or no class is dropped.
    """
    boxes, labels, scores, count = given
    rows = slice(int(np.nan_to_num(count)))
    limits = np.asarray([decoding["width"], decoding["height"]] * 2, dtype=np.float64)
    placed = boxes[rows].astype(np.float64)[:, [1, 0, 3, 2]] * limits
    corners = (np.minimum(np.maximum(placed, 0.0), limits) + 0.0).astype(np.float32)
    known = (labels[rows] >= 0) & (labels[rows] < decoding["classes"])
    usable = np.isfinite(corners).all(axis=1) & np.isfinite(scores[rows]) & known
    return corners[usable], labels[rows][usable].astype(np.int64), scores[rows][usable].astype(np.float32)


def anchor_corners(decoding: Mapping[str, Any]) -> np.ndarray:
    """Corners of all anchors in their order: float64 (anchors, 4)."""
    levels = []
    for level in decoding["levels"]:
        boxes = np.asarray(level["boxes"], dtype=np.float64)
        y = level["origin"][0] + np.arange(level["rows"]) * level["step"][0]
        x = level["origin"][1] + np.arange(level["columns"]) * level["step"][1]
        corners = np.empty((level["rows"], level["columns"], len(boxes), 4))
        corners[..., 0::2] = x[None, :, None, None] + boxes[:, 0::2]
        corners[..., 1::2] = y[:, None, None, None] + boxes[:, 1::2]
        levels.append(corners.reshape(-1, 4))
    return np.concatenate(levels)


def exponential(values: np.ndarray) -> np.ndarray:
    """The exponential of float64 values, to the last bit or two: 2 to the k times that of a rest, by Taylor's series.

    Source: the usual reduction, as in W. J. Cody and W. Waite, "Software Manual for the Elementary Functions" (1980).
    """
    bounded = np.minimum(np.maximum(values, -_LARGEST_EXPONENT), _LARGEST_EXPONENT)
    powers = np.floor(bounded * _LOG2_E + 0.5)
    rest = (bounded - powers * _LN_2_HIGH) - powers * _LN_2_LOW
    series = np.full_like(rest, _TAYLOR[0])
    for factor in _TAYLOR[1:]:
        series = series * rest + factor
    whole = np.where(np.isnan(powers), 0, powers).astype(np.int64)
    result: np.ndarray = series * ((whole + 1023) << 52).view(np.float64)
    return result


def overlaps(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of every box of `some` with every one of `others`: float64 (n, m).

    0 where neither has an area.
    """
    first, second = some.astype(np.float64), others.astype(np.float64)
    width, height = (
        np.maximum(
            np.minimum(first[:, None, axis + 2], second[:, axis + 2])
            - np.maximum(first[:, None, axis], second[:, axis]),
            0,
        )
        for axis in (0, 1)
    )
    shared = width * height
    either = _areas(first)[:, None] + _areas(second) - shared
    shares: np.ndarray = np.divide(shared, either, out=np.zeros_like(shared), where=either > 0)
    return shares


def _areas(corners: np.ndarray) -> np.ndarray:
    areas: np.ndarray = (corners[..., 2] - corners[..., 0]) * (corners[..., 3] - corners[..., 1])
    return areas


def _decode_image(heads: Sequence[np.ndarray], anchors: np.ndarray, decoding: Mapping[str, Any]) -> Found:
    with np.errstate(over="ignore", invalid="ignore"):  # heads may hold what is no number: it is dropped
        scores = _scores(heads, decoding)
        boxes = _boxes(heads[1], anchors, decoding)
    usable = np.isfinite(boxes).all(axis=1)
    found = [_best(scores, usable, *part, decoding) for part in _parts(decoding, len(anchors))]
    places = np.concatenate([each[0] for each in found])
    classes = np.concatenate([each[1] for each in found])
    corners, kept_scores = boxes[places], scores[places, classes]
    kept = _without_overlaps(corners, classes, kept_scores, decoding)
    return corners[kept], classes[kept], kept_scores[kept]


def _scores(heads: Sequence[np.ndarray], decoding: Mapping[str, Any]) -> np.ndarray:
    """Float32 (anchors, classes), without the background."""
    logits = heads[0].astype(np.float64)
    if decoding["scores"] == "softmax":
        powers = exponential(logits - logits.max(axis=1, keepdims=True))
        total = np.zeros(len(powers))
        for column in range(powers.shape[1]):  # one after the other: NumPy's own sum has another order
            total = total + powers[:, column]
        reported = [column for column in range(powers.shape[1]) if column != decoding["background"]]
        return (powers / total[:, None])[:, reported].astype(np.float32)
    scores = _sigmoid(logits)
    if decoding["scores"] == "sigmoid-centerness":
        scores = np.sqrt(scores * _sigmoid(heads[2].astype(np.float64)))
    return scores.astype(np.float32)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + exponential(-values))


def _boxes(numbers: np.ndarray, anchors: np.ndarray, decoding: Mapping[str, Any]) -> np.ndarray:
    """Float32 corners (anchors, 4), cut at the borders of the input."""
    given = numbers.astype(np.float64)
    low, high = anchors[:, :2], anchors[:, 2:]
    sizes = high - low
    corners = np.empty_like(given)
    if decoding["boxes"] == "offsets":
        middles = low + 0.5 * sizes
        moved = given / np.asarray(decoding["weights"], dtype=np.float64)
        centres = moved[:, :2] * sizes + middles
        halves = 0.5 * (exponential(np.minimum(moved[:, 2:], decoding["scale_limit"])) * sizes)
        corners[:, :2], corners[:, 2:] = centres - halves, centres + halves
    else:
        middles = 0.5 * (low + high)
        corners[:, :2], corners[:, 2:] = middles - given[:, :2] * sizes, middles + given[:, 2:] * sizes
    limits = np.asarray([decoding["width"], decoding["height"]] * 2, dtype=np.float64)
    return (np.minimum(np.maximum(corners, 0.0), limits) + 0.0).astype(np.float32)  # -0 becomes 0


def _parts(decoding: Mapping[str, Any], anchors: int) -> Iterator[Tuple[slice, slice]]:
    """Which anchors and which classes compete for the places of candidates."""
    if decoding["candidates"]["per"] == "class":
        for label in range(decoding["classes"]):
            yield slice(0, anchors), slice(label, label + 1)
        return
    first = 0
    for level in decoding["levels"]:
        last = first + level["rows"] * level["columns"] * len(level["boxes"])
        yield slice(first, last), slice(0, decoding["classes"])
        first = last


def _best(
    scores: np.ndarray, usable: np.ndarray, anchors: slice, classes: slice, decoding: Mapping[str, Any]
) -> Tuple[np.ndarray, np.ndarray]:
    """Anchor and class of the best candidates of a part, the best first; of equals, the first anchor's first class."""
    part = scores[anchors, classes]
    places = np.flatnonzero((part > decoding["score_threshold"]) & usable[anchors, None])
    order = np.argsort(-part.reshape(-1)[places], kind="stable")[: decoding["candidates"]["most"]]
    rows, columns = np.divmod(places[order], part.shape[1])
    return rows + anchors.start, columns + classes.start


def _without_overlaps(
    corners: np.ndarray, classes: np.ndarray, scores: np.ndarray, decoding: Mapping[str, Any]
) -> np.ndarray:
    """Which candidates stay, the best first."""
    order = np.argsort(-scores, kind="stable")
    kept = []
    for label in np.unique(classes):
        ranks = np.flatnonzero(classes[order] == label)
        kept.append(ranks[_greedy(corners[order[ranks]], decoding["iou_threshold"], decoding["most"])])
    ranks = np.sort(np.concatenate(kept))[: decoding["most"]] if kept else np.empty(0, dtype=np.int64)
    remaining: np.ndarray = order[ranks]
    return remaining


def _greedy(corners: np.ndarray, threshold: float, most: int) -> np.ndarray:
    """Of boxes of one class, the best first, those that overlap no better one that stays; at most `most`."""
    alive = np.ones(len(corners), dtype=np.bool_)
    kept = []
    for first in range(0, len(corners), _BLOCK):
        ranks = first + np.flatnonzero(alive[first : first + _BLOCK])
        near = overlaps(corners[ranks], corners[first:]) > threshold
        for place, rank in enumerate(ranks):
            if alive[rank]:
                kept.append(rank)
                if len(kept) == most:
                    return np.asarray(kept, dtype=np.int64)
                alive[rank + 1 :] &= ~near[place, rank + 1 - first :]
    return np.asarray(kept, dtype=np.int64)
