"""From raw heads to boxes, as every other language does it: the order of each operation is part of the definition.

All arithmetic is in 64 bits, of addition, subtraction, multiplication, division, square root and rounding down alone,
which IEEE 754 defines to the last bit; the exponential is made of these (`exponential`). What is compared is first
rounded to 32 bits: scores, and the corners of boxes. So `decoding.js` and `BoxDecoder.kt` give the same bits, which a
test holds. Torch computes in 32 bits and with its own exponential: its scores differ in their last bits, and where two
boxes are nearly as good as each other, so may their order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from edgeopt_detection.boxes import Detections, overlaps

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from edgeopt_detection.decoding.description import BoxDecoding

    Doubles: TypeAlias = NDArray[np.float64]
    Floats: TypeAlias = NDArray[np.float32]
    Places: TypeAlias = NDArray[np.int64]

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


def decode(heads: Sequence[Floats], decoding: BoxDecoding) -> list[Detections]:
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
    corners = anchor_corners(decoding)
    return [_decode_image(tuple(head[image] for head in heads), corners, decoding) for image in range(len(heads[0]))]


def anchor_corners(decoding: BoxDecoding) -> Doubles:
    """Corners of all anchors in their order: float64 (anchors, 4)."""
    levels = []
    for level in decoding.levels:
        boxes = np.asarray(level.boxes, dtype=np.float64)
        y = level.origin[0] + np.arange(level.rows) * level.step[0]
        x = level.origin[1] + np.arange(level.columns) * level.step[1]
        corners = np.empty((level.rows, level.columns, len(boxes), 4))
        corners[..., 0::2] = x[None, :, None, None] + boxes[:, 0::2]
        corners[..., 1::2] = y[:, None, None, None] + boxes[:, 1::2]
        levels.append(corners.reshape(-1, 4))
    return np.concatenate(levels)


def exponential(values: Doubles) -> Doubles:
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
    result: Doubles = series * ((whole + 1023) << 52).view(np.float64)
    return result


def _decode_image(heads: tuple[Floats, ...], anchors: Doubles, decoding: BoxDecoding) -> Detections:
    with np.errstate(over="ignore", invalid="ignore"):  # heads may hold what is no number: it is dropped
        scores = _scores(heads, decoding)
        boxes = _boxes(heads[1], anchors, decoding)
    usable: NDArray[np.bool_] = np.asarray(np.isfinite(boxes).all(axis=1))
    found = [_best(scores, usable, *part, decoding) for part in _parts(decoding)]
    places = np.concatenate([each[0] for each in found])
    classes = np.concatenate([each[1] for each in found])
    corners, kept_scores = boxes[places], scores[places, classes]
    kept = _without_overlaps(corners, classes, kept_scores, decoding)
    return Detections(corners[kept], classes[kept], kept_scores[kept])


def _scores(heads: tuple[Floats, ...], decoding: BoxDecoding) -> Floats:
    """Float32 (anchors, classes), without the background."""
    logits = heads[0].astype(np.float64)
    if decoding.scores == "softmax":
        powers = exponential(logits - logits.max(axis=1, keepdims=True))
        total = np.zeros(len(powers))
        for column in range(powers.shape[1]):  # one after the other: NumPy's own sum has another order
            total = total + powers[:, column]
        reported = [column for column in range(powers.shape[1]) if column != decoding.background]
        return (powers / total[:, None])[:, reported].astype(np.float32)
    scores = _sigmoid(logits)
    if decoding.scores == "sigmoid-centerness":
        scores = np.sqrt(scores * _sigmoid(heads[2].astype(np.float64)))
    return scores.astype(np.float32)


def _sigmoid(values: Doubles) -> Doubles:
    return 1.0 / (1.0 + exponential(-values))


def _boxes(numbers: Floats, anchors: Doubles, decoding: BoxDecoding) -> Floats:
    """Float32 corners (anchors, 4), cut at the borders of the input."""
    given = numbers.astype(np.float64)
    low, high = anchors[:, :2], anchors[:, 2:]
    sizes = high - low
    corners = np.empty_like(given)
    if decoding.scale_limit is not None:
        middles = low + 0.5 * sizes
        moved = given / np.asarray(decoding.weights)
        centres = moved[:, :2] * sizes + middles
        halves = 0.5 * (exponential(np.minimum(moved[:, 2:], decoding.scale_limit)) * sizes)
        corners[:, :2], corners[:, 2:] = centres - halves, centres + halves
    else:
        middles = 0.5 * (low + high)
        corners[:, :2], corners[:, 2:] = middles - given[:, :2] * sizes, middles + given[:, 2:] * sizes
    limits = np.asarray([decoding.width, decoding.height] * 2, dtype=np.float64)
    return (np.minimum(np.maximum(corners, 0.0), limits) + 0.0).astype(np.float32)  # -0 becomes 0


def _parts(decoding: BoxDecoding) -> Iterator[tuple[slice, slice]]:
    """Which anchors and which classes compete for the places of candidates."""
    if decoding.candidates.per == "class":
        for label in range(decoding.classes):
            yield slice(0, decoding.anchors), slice(label, label + 1)
        return
    first = 0
    for level in decoding.levels:
        yield slice(first, first + level.anchors), slice(0, decoding.classes)
        first += level.anchors


def _best(
    scores: Floats, usable: NDArray[np.bool_], anchors: slice, classes: slice, decoding: BoxDecoding
) -> tuple[Places, Places]:
    """Anchor and class of the best candidates of a part, the best first; of equals, the first anchor's first class."""
    part = scores[anchors, classes]
    places = np.flatnonzero((part > decoding.score_threshold) & usable[anchors, None])
    order = np.argsort(-part.reshape(-1)[places], kind="stable")[: decoding.candidates.most]
    rows, columns = np.divmod(places[order], part.shape[1])
    return rows + anchors.start, columns + classes.start


def _without_overlaps(corners: Floats, classes: Places, scores: Floats, decoding: BoxDecoding) -> Places:
    """Which candidates stay, the best first."""
    order = np.argsort(-scores, kind="stable")
    kept: list[NDArray[np.int64]] = []
    for label in np.unique(classes):
        ranks = np.flatnonzero(classes[order] == label)
        kept.append(ranks[_greedy(corners[order[ranks]], decoding.iou_threshold, decoding.most)])
    ranks = np.sort(np.concatenate(kept))[: decoding.most] if kept else np.empty(0, dtype=np.int64)
    return order[ranks]


def _greedy(corners: Floats, threshold: float, most: int) -> Places:
    """Of boxes of one class, the best first, those that overlap no better one that stays; at most `most`."""
    alive = np.ones(len(corners), dtype=np.bool_)
    kept: list[int] = []
    for rank in range(len(corners)):
        if alive[rank]:
            kept.append(rank)
            if len(kept) == most:
                break
            alive[rank + 1 :] &= ~(overlaps(corners[rank : rank + 1], corners[rank + 1 :])[0] > threshold)
    return np.asarray(kept, dtype=np.int64)
