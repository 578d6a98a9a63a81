"""What a report shows of boxes: each class's average precision, precision by recall, and the worst images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.plugins import Outline, Section, SectionImage, SectionPlot, SectionTable
from edgeopt_detection.boxes import Boxes, Detections
from edgeopt_detection.scores.average_precision import PrecisionCurve, detection_scores
from edgeopt_detection.scores.matching import match

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WORST = 12  # images that are shown
_LINES = 8  # classes with a line of their own: the first of them by name


def image_grades(
    answers: Sequence[Detections], boxes: Sequence[Boxes], class_count: int, overlap: float
) -> NDArray[np.float64]:
    """F1 of the answers to each image, float64 (n,): 1 where there is nothing to find and nothing is answered.

    Answers in crowd regions do not count.
    """
    matches = match(answers, boxes, class_count, (overlap,), most=None)
    count = len(answers)
    hits = np.bincount(matches.images[matches.hits[0]], minlength=count)
    given = np.bincount(matches.images[~matches.ignored[0]], minlength=count)
    asked = np.bincount(matches.object_images, minlength=count)
    grades: NDArray[np.float64] = np.where(given + asked > 0, 2 * hits / np.maximum(1, given + asked), 1.0)
    return grades


def box_section(
    found: Sequence[Detections],
    shown: Sequence[Detections],
    boxes: Sequence[Boxes],
    grades: NDArray[np.float64],
    classes: Sequence[str],
    size: tuple[int, int],
) -> Section:
    """Scores of each class, curves, and the images with the lowest grades first; `size` is (height, width) in px."""
    scores = detection_scores(found, boxes, classes)
    asked = np.bincount(np.concatenate([each.classes[~each.crowd] for each in boxes]), minlength=len(classes))
    rows = [
        (name, int(asked[label]), f"{100 * one.value:.1f} %", f"{100 * one.low:.1f} to {100 * one.high:.1f} %")
        for label, name in enumerate(classes)
        if (one := scores.per_class.get(name)) is not None
    ]
    table = SectionTable(("class", "boxes", "AP", "95 % interval"), tuple(rows), "Average precision of each class")
    means = [(f"all, overlap {curve.overlap:g}", curve) for curve in scores.curves]
    lines = [_line(name, curve) for name, curve in [*means, *list(scores.class_curves.items())[:_LINES]]]
    plot = SectionPlot("Precision by recall", "recall", "precision", tuple(lines))
    worst = np.argsort(grades, kind="stable")[:_WORST]
    images = tuple(_image(int(index), shown[index], boxes[index], grades[index], classes, size) for index in worst)
    counted = f"{scores.boxes} boxes in {scores.images} images."
    order = "The worst images come first, by F1 of the boxes that an app would show."
    return Section("Boxes", (counted, order), (table,), (plot,), images)


def _line(name: str, curve: PrecisionCurve) -> tuple[str, tuple[float, ...], tuple[float, ...]]:
    recalls = np.linspace(0, 1, len(curve.precision))
    return name, tuple(recalls.tolist()), tuple(curve.precision.tolist())


def _image(
    index: int, answer: Detections, truth: Boxes, grade: float, classes: Sequence[str], size: tuple[int, int]
) -> SectionImage:
    wanted = [_outline(corners, size, "", is_truth=True) for corners in truth.corners]
    given = [
        _outline(corners, size, f"{classes[label]} {score:.2f}", is_truth=False)
        for corners, label, score in zip(answer.corners, answer.classes, answer.scores, strict=True)
    ]
    names = [", ".join(classes[label] for label in each.classes) or "nothing" for each in (truth, answer)]
    return SectionImage(index, names[0], names[1], bool(grade >= 1.0), (*wanted, *given))


def _outline(corners: NDArray[np.float32], size: tuple[int, int], text: str, *, is_truth: bool) -> Outline:
    height, width = size
    x1, y1, x2, y2 = (float(each) for each in corners / np.asarray([width, height] * 2))
    return Outline(((x1, y1), (x2, y1), (x2, y2), (x1, y2)), text, is_truth)
