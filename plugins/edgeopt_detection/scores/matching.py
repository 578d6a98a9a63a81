"""Which detections hit which boxes: COCO's greedy matching, of all images at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeopt_detection.boxes import Boxes, Detections

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Flags = NDArray[np.bool_]
    Places = NDArray[np.int64]
    Numbers = NDArray[np.float64]

#: Of one class in one image, no more detections count.
MOST_DETECTIONS = 100
_SURELY = 1 - 1e-10  # an overlap from which boxes are the same, where one asks for 1
_AT_ONCE = 2_000_000  # overlaps held at once


@dataclass(frozen=True, eq=False)
class Matches:
    """What became of each detection, sorted by class, then by score with the best first.

    Of n detections, each with its `images`, `classes` (int64) and `scores` (float32): `hits`, bool (thresholds, n),
    where it took a box of its class with that overlap, and `ignored`, where it lies in a crowd region instead.
    `object_images` and `object_classes`, int64, are those of each box that is to be found.
    """

    thresholds: tuple[float, ...]
    image_count: int
    class_count: int
    images: Places
    classes: Places
    scores: NDArray[np.float32]
    hits: Flags
    ignored: Flags
    object_images: Places
    object_classes: Places


def match(
    detections: Sequence[Detections],
    boxes: Sequence[Boxes],
    class_count: int,
    thresholds: Sequence[float],
    most: int | None = MOST_DETECTIONS,
) -> Matches:
    """Matches the detections of each image with its boxes.

    In the order of their scores, each detection takes the box of its class that it overlaps most, of those that are
    left and that it overlaps by the threshold at least; of a class in an image, the best `most` detections count.
    In a crowd region, any number of detections is ignored: what counts there is the share of the detection that lies
    within.

    Source: `COCOeval.evaluateImg` of pycocotools, for boxes of all sizes.

    Raises `ValueError` when there are not as many answers as images.
    """
    if len(detections) != len(boxes):
        raise ValueError(f"there are {len(detections)} answers for {len(boxes)} images")
    found = _Rows.of([each.corners for each in detections], [each.classes for each in detections], class_count)
    scores = np.concatenate([np.empty(0, dtype=np.float32), *(each.scores for each in detections)])
    found, scores = found.sorted_by(-scores, scores)
    if most is not None:
        kept = found.ranks < most
        found, scores = found.only(kept), scores[kept]
    real = _Rows.of([each.corners for each in boxes], [each.classes for each in boxes], class_count)
    crowd = np.concatenate([np.empty(0, dtype=np.bool_), *(each.crowd for each in boxes)])
    real, crowd = real.sorted_by(crowd, crowd)
    hits = np.zeros((len(thresholds), len(scores)), dtype=np.bool_)
    ignored = np.zeros_like(hits)
    limits = np.minimum(np.asarray(thresholds, dtype=np.float64), _SURELY)
    for group in _groups(found, real):
        _match_group(group, found, real, crowd, limits, hits, ignored)
    order = np.lexsort((found.ranks, found.images, -scores, found.classes))
    return Matches(
        tuple(thresholds),
        len(boxes),
        class_count,
        found.images[order],
        found.classes[order],
        scores[order],
        hits[:, order],
        ignored[:, order],
        real.images[~crowd],
        real.classes[~crowd],
    )


@dataclass(frozen=True, eq=False)
class _Rows:
    """Boxes of all images: float64 corners (n, 4), image, class, and a number that tells both, each (n,)."""

    corners: Numbers
    images: Places
    classes: Places
    keys: Places

    @classmethod
    def of(cls, corners: Sequence[NDArray[np.float32]], classes: Sequence[Places], class_count: int) -> _Rows:
        images = np.repeat(np.arange(len(corners), dtype=np.int64), [len(each) for each in corners])
        labels = np.concatenate([np.empty(0, dtype=np.int64), *classes])
        flat = np.concatenate([np.empty((0, 4), dtype=np.float32), *corners]).astype(np.float64)
        return cls(flat, images, labels, images * class_count + labels)

    @property
    def ranks(self) -> Places:
        """The place of each row among those of its image and class."""
        places = np.arange(len(self.keys), dtype=np.int64)
        starts = np.flatnonzero(np.diff(self.keys, prepend=-1))
        return places - np.repeat(starts, np.diff(np.append(starts, len(places))))

    def only(self, chosen: Flags | Places) -> _Rows:
        """Some of the rows."""
        return _Rows(self.corners[chosen], self.images[chosen], self.classes[chosen], self.keys[chosen])

    def sorted_by(self, within: NDArray, *along: NDArray) -> tuple:  # type: ignore[type-arg]
        """Sorted by image, class and `within`, equals as they stood; and arrays that go with the rows."""
        order = np.lexsort((np.arange(len(within)), within, self.keys))
        return self.only(order), *(each[order] for each in along)


@dataclass(frozen=True, eq=False)
class _Group:
    """Images and classes with about as many boxes: the first detection and how many, the first box and how many."""

    first_found: Places
    found: Places
    first_real: Places
    real: Places
    width: int


def _groups(found: _Rows, real: _Rows) -> Iterator[_Group]:
    """All images and classes that have both detections and boxes, those with the most detections first."""
    keys, first_found, count_found = np.unique(found.keys, return_index=True, return_counts=True)
    first_real = np.searchsorted(real.keys, keys, side="left")
    count_real = np.searchsorted(real.keys, keys, side="right") - first_real
    width = 1
    while width < 2 * count_real.max(initial=0):
        here = np.flatnonzero((count_real > width // 2) & (count_real <= width))
        here = here[np.argsort(-count_found[here], kind="stable")]
        at_once = max(1, _AT_ONCE // (10 * width))
        for start in range(0, len(here), at_once):
            part = here[start : start + at_once]
            yield _Group(first_found[part], count_found[part], first_real[part], count_real[part], width)
        width *= 2


def _match_group(
    group: _Group, found: _Rows, real: _Rows, crowd: Flags, limits: Numbers, hits: Flags, ignored: Flags
) -> None:
    """Fills `hits` and `ignored` of a group's detections."""
    columns = np.arange(group.width)
    there = columns < group.real[:, None]
    places = np.where(there, group.first_real[:, None] + columns, 0)
    boxes, is_crowd = real.corners[places], crowd[places] & there
    free = np.repeat((there & ~is_crowd)[:, None, :], len(limits), axis=1)
    has_crowd = bool(is_crowd.any())
    for rank in range(int(group.found.max(initial=0))):
        count = int(np.searchsorted(-group.found, -rank, side="left"))  # those with more than `rank` detections
        rows = group.first_found[:count] + rank
        shared, overlap = _overlaps(found.corners[rows], boxes[:count])
        values = np.where(free[:count] & (overlap[:, None, :] >= limits[:, None]), overlap[:, None, :], -1.0)
        best = group.width - 1 - np.argmax(values[..., ::-1], axis=2)  # the last of equals, as pycocotools has it
        hit = np.take_along_axis(values, best[..., None], axis=2)[..., 0] >= 0
        image, threshold = np.nonzero(hit)
        free[image, threshold, best[image, threshold]] = False
        hits[:, rows] = hit.T
        if has_crowd:
            within = (shared[:, None, :] >= limits[:, None]) & is_crowd[:count, None, :]
            ignored[:, rows] = (within.any(axis=2) & ~hit).T


def _overlaps(some: Numbers, others: Numbers) -> tuple[Numbers, Numbers]:
    """Share of each of `some` (n, 4) in each of its `others` (n, m, 4), and intersection over union: (n, m) each."""
    low = np.maximum(some[:, None, :2], others[..., :2])
    high = np.minimum(some[:, None, 2:], others[..., 2:])
    sides = np.maximum(high - low, 0)
    shared = sides[..., 0] * sides[..., 1]
    own = np.prod(some[:, 2:] - some[:, :2], axis=1)[:, None] + np.zeros_like(shared)
    either = own + np.prod(others[..., 2:] - others[..., :2], axis=2) - shared
    share, overlap = (np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0) for whole in (own, either))
    return share, overlap
