"""COCO's mean average precision from matches, and its interval by a bootstrap over images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgeopt_detection.boxes import Boxes, Detections
from edgeopt_detection.scores.matching import Matches, match

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

#: Overlaps that COCO's mean average precision is the mean over: 0.5, 0.55, … 0.95.
OVERLAPS = tuple(float(each) for each in np.linspace(0.5, 0.95, 10))
_RECALLS = 101  # places of recall, 0 to 1, at which precision is taken
_PLACES_OF_RECALL = np.linspace(0, 1, _RECALLS)
_DRAWS = 200  # of a bootstrap
_PLACES = 256  # of a curve that a bootstrap looks at
_DEAR = 30  # what a number costs that is picked from a table, in products of two numbers within a matrix product
_TINY = 1e-9  # by which a hundredth of recall may lie below a place of it, to be looked at again


@dataclass(frozen=True)
class Estimate:
    """A score between 0 and 1, and the interval that holds it in 95 of 100 samples of as many images."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class PrecisionCurve:
    """Precision at 101 places of recall from 0 to 1 for boxes that overlap by `overlap`; float64 (101,)."""

    overlap: float
    precision: Numbers


@dataclass(frozen=True, eq=False)
class DetectionScores:
    """Mean average precision over overlaps and classes, that at an overlap of 0.5, and each class's own, by name.

    A class of which no image has a box has no score and stands in no mean. `curves` has the mean curve over classes of
    overlaps of 0.5 and 0.75, `class_curves` those of each class at 0.5.
    """

    map: Estimate
    map50: Estimate
    per_class: Mapping[str, Estimate]
    images: int
    boxes: int
    detections: int
    curves: tuple[PrecisionCurve, ...] = ()
    class_curves: Mapping[str, PrecisionCurve] = field(default_factory=dict)


def detection_scores(
    detections: Sequence[Detections], boxes: Sequence[Boxes], classes: Sequence[str], seed: int = 0
) -> DetectionScores:
    """COCO's scores of the answers for images; `seed` draws the bootstrap.

    The values are those of pycocotools for boxes of all sizes and 100 detections of a class in an image. The intervals
    are percentiles of 200 draws of as many images around the value; matches are made once, and each draw weighs them,
    at up to 256 places of each curve.

    Source: T.-Y. Lin et al., "Microsoft COCO: Common Objects in Context" (2014), and its evaluation code.
    """
    matches = match(detections, boxes, len(classes), OVERLAPS)
    curves = precision_curves(matches)
    precisions = average_precisions(curves)
    draws = _drawn(matches, seed)
    known = [label for label in range(len(classes)) if not np.isnan(precisions[0, label])]
    at_half, at_three_quarters = OVERLAPS.index(0.5), 5
    return DetectionScores(
        _estimate(_mean(precisions), _mean_of_draws(draws)),
        _estimate(_mean(precisions[at_half]), _mean_of_draws(draws[:, at_half : at_half + 1])),
        {
            classes[label]: _estimate(float(precisions[:, label].mean()), draws[:, :, label].mean(axis=1))
            for label in known
        },
        images=matches.image_count,
        boxes=len(matches.object_images),
        detections=len(matches.images),
        curves=tuple(
            PrecisionCurve(OVERLAPS[place], curves[place, known].mean(axis=0) if known else np.zeros(_RECALLS))
            for place in (at_half, at_three_quarters)
        ),
        class_curves={classes[label]: PrecisionCurve(0.5, curves[at_half, label]) for label in known},
    )


def precision_curves(matches: Matches) -> Numbers:
    """The best precision at each recall or above: float64 (thresholds, classes, 101), NaN for classes without boxes."""
    curves = np.full((len(matches.thresholds), matches.class_count, _RECALLS), np.nan)
    for label, rows in _rows_of_classes(matches):
        objects = np.count_nonzero(matches.object_classes == label)
        if not objects:
            continue
        hits, counted = matches.hits[:, rows], ~matches.ignored[:, rows]
        found, all_ = np.cumsum(hits, axis=1), np.cumsum(counted, axis=1)
        # as pycocotools, which adds the smallest difference from 1 where nothing is counted yet
        precision = found / (all_ + np.spacing(1))
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        for threshold in range(len(curves)):
            places = np.searchsorted(found[threshold] / objects, _PLACES_OF_RECALL, side="left")
            reached = places < len(rows)
            curves[threshold, label] = 0
            curves[threshold, label, reached] = best[threshold, places[reached]]
    return curves


def average_precisions(curves: Numbers) -> Numbers:
    """Average precision of each threshold and class: float64 (thresholds, classes), NaN for classes without boxes."""
    means: Numbers = curves.mean(axis=2)
    return means


def _drawn(matches: Matches, seed: int) -> Numbers:
    """Average precision of each draw of a bootstrap: float64 (draws, thresholds, classes), NaN where none was drawn.

    Precision is best where something is found, and recall grows there alone: nothing else is looked at. Where more is
    found than `_PLACES`, as many places of it are.
    """
    drawn = np.full((_DRAWS, len(matches.thresholds), matches.class_count), np.nan)
    if not matches.image_count:
        return drawn
    shares = np.full(matches.image_count, 1 / matches.image_count)
    weights = np.random.default_rng(seed).multinomial(matches.image_count, shares, _DRAWS).astype(np.float32)
    for label, rows in _rows_of_classes(matches):
        objects = weights[:, matches.object_images[matches.object_classes == label]].sum(axis=1)
        images = matches.images[rows]
        for threshold in range(len(matches.thresholds)):
            hits, counted = matches.hits[threshold, rows], ~matches.ignored[threshold, rows]
            places = np.flatnonzero(hits)
            if len(places) > _PLACES:
                places = places[np.linspace(0, len(places) - 1, _PLACES).round().astype(np.int64)]
            found = _sums(weights, images, hits, places)
            drawn[:, threshold, label] = _weighted(found, _sums(weights, images, counted, places), objects)
    return drawn


def _sums(
    weights: NDArray[np.float32], images: NDArray[np.int64], chosen: NDArray[np.bool_], places: NDArray[np.int64]
) -> Numbers:
    """For each draw, the weights of the chosen detections up to each of `places`, these included: (draws, places)."""
    used = np.flatnonzero(chosen)
    ends = np.searchsorted(used, places, side="right")
    used = used[: ends[-1]] if len(ends) else used[:0]
    seen, row = np.unique(images[used], return_inverse=True)
    if len(used) * _DEAR < len(seen) * len(places):  # few detections of each image
        return np.cumsum(weights[:, images[used]], axis=1, dtype=np.float64)[:, ends - 1]
    steps = np.searchsorted(ends, np.arange(len(used)), side="right")  # the place up to which each first counts
    counts = np.bincount(row * len(places) + steps, minlength=len(seen) * len(places))
    table = counts.reshape(len(seen), len(places)).astype(np.float32)
    return np.cumsum(weights[:, seen] @ table, axis=1, dtype=np.float64)


def _weighted(found: Numbers, counted: Numbers, objects: NDArray[np.float32]) -> Numbers:
    """Average precision of draws, (draws,), from the weights of what was found, and what was counted up to there.

    The mean of the best precision at 101 places of recall is the sum over what was found, each as often as its step of
    recall passes such a place.
    """
    if not found.shape[1]:
        return np.where(objects > 0, 0, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):  # nothing is counted yet, or no box was drawn
        best = np.nan_to_num(found / counted)
        recall = found / objects[:, None].astype(np.float64)
    np.maximum.accumulate(best[:, ::-1], axis=1, out=best[:, ::-1])
    below = np.clip(np.nan_to_num(np.floor(recall * (_RECALLS - 1) + _TINY)), 0, _RECALLS - 1).astype(np.int64)
    passed = np.where(found > 0, below + (_PLACES_OF_RECALL[below] <= recall), 0)
    precisions: Numbers = (np.diff(passed, axis=1, prepend=0) * best).sum(axis=1) / _RECALLS
    return np.where(objects > 0, precisions, np.nan)


def _rows_of_classes(matches: Matches) -> list[tuple[int, NDArray[np.int64]]]:
    """The detections of each class, the best first."""
    ends = np.searchsorted(matches.classes, np.arange(matches.class_count + 1))
    return [(label, np.arange(ends[label], ends[label + 1])) for label in range(matches.class_count)]


def _mean(precisions: Numbers) -> float:
    """The mean over classes that have one, 0 where none has."""
    known = precisions[~np.isnan(precisions)]
    return float(known.mean()) if len(known) else 0.0


def _mean_of_draws(draws: Numbers) -> Numbers:
    """The mean of each draw over the classes that it holds: (draws,)."""
    known = ~np.isnan(draws)
    sums = np.where(known, draws, 0).sum(axis=(1, 2))
    counts = known.sum(axis=(1, 2))
    means: Numbers = np.divide(sums, counts, out=np.full(len(draws), np.nan), where=counts > 0)
    return means


def _estimate(value: float, draws: Numbers) -> Estimate:
    """Percentiles of draws, moved so that their mean is the value: images drawn twice raise it a little."""
    known = draws[~np.isnan(draws)]
    if not len(known):
        return Estimate(value, value, value)
    low, high = np.clip(np.percentile(known, (2.5, 97.5)) + (value - known.mean()), 0, 1)
    return Estimate(value, min(float(low), value), max(float(high), value))
