"""Scores of boxes: pycocotools and faster-coco-eval as oracles, and what intervals, curves and agreement say."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeopt_detection.boxes import Boxes, Detections
from edgeopt_detection.scores.agreement import box_agreement
from edgeopt_detection.scores.average_precision import OVERLAPS, average_precisions, detection_scores, precision_curves
from edgeopt_detection.scores.matching import match

CLASSES = 3


def random_case(random, images, *, ties=False, crowds=False, boxes=6):
    """Answers near the boxes, some of another class, some nowhere; images without boxes and without answers as well."""
    answers, real = [], []
    for _ in range(images):
        count = int(random.integers(0, boxes + 1))
        low, sides = random.uniform(0, 80, (count, 2)), random.uniform(2, 60, (count, 2))
        corners = np.concatenate([low, low + sides], axis=1).astype(np.float32)
        if ties:
            corners = np.round(corners / 8) * 8 + np.float32([0, 0, 8, 8])
        classes = random.integers(0, CLASSES, count)
        real.append(Boxes.of(corners, classes, random.random(count) < 0.2 if crowds else None))
        chosen = (
            random.integers(0, count, int(random.integers(0, 2 * count + 1))) if count else np.empty(0, dtype=np.int64)
        )
        moved = corners[chosen] + random.normal(0, random.choice([0, 1, 5]), (len(chosen), 4)).astype(np.float32)
        moved = np.concatenate([np.minimum(moved[:, :2], moved[:, 2:]), np.maximum(moved[:, :2], moved[:, 2:])], axis=1)
        labels = np.where(random.random(len(chosen)) < 0.8, classes[chosen], random.integers(0, CLASSES, len(chosen)))
        scores = random.random(len(chosen)).astype(np.float32)
        scores = np.round(scores * 4) / 4 if ties else scores
        order = np.argsort(-scores, kind="stable")
        answers.append(
            Detections(
                moved.astype(np.float32)[order], labels.astype(np.int64)[order], scores[order].astype(np.float32)
            )
        )
    return answers, real


def coco_files(answers, real):
    """The same as pycocotools takes it: images, annotations and results."""

    def sides(corners):
        x1, y1, x2, y2 = (float(each) for each in corners)
        return [x1, y1, x2 - x1, y2 - y1]

    annotations = [
        {
            "image_id": image,
            "category_id": int(label),
            "bbox": sides(corners),
            "area": float(np.prod(sides(corners)[2:])),
            "iscrowd": int(crowd),
        }
        for image, boxes in enumerate(real)
        for corners, label, crowd in zip(boxes.corners, boxes.classes, boxes.crowd, strict=True)
    ]
    for number, annotation in enumerate(annotations):
        annotation["id"] = number + 1
    results = [
        {"image_id": image, "category_id": int(label), "bbox": sides(corners), "score": float(score)}
        for image, found in enumerate(answers)
        for corners, label, score in zip(found.corners, found.classes, found.scores, strict=True)
    ]
    images = [{"id": image, "width": 200, "height": 200} for image in range(len(real))]
    return {
        "info": {},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": each, "name": str(each)} for each in range(CLASSES)],
    }, results


def coco_precision(library, answers, real):
    """Precision (thresholds, recalls, classes) for boxes of all sizes, -1 for classes without boxes."""
    if library == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    else:
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as COCOeval
    data, results = coco_files(answers, real)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = data
        truth.createIndex()
        found = truth.loadRes(results) if results else COCO()
        if not results:
            found.dataset = {**data, "annotations": []}
            found.createIndex()
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][:, :, :, 0, 0]


def own_precision(answers, real):
    return np.nan_to_num(precision_curves(match(answers, real, CLASSES, OVERLAPS)), nan=-1).transpose(0, 2, 1)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.booleans(), st.booleans())
def test_precision_is_that_of_pycocotools_on_random_cases(seed, images, ties, crowds):
    answers, real = random_case(np.random.default_rng(seed), images, ties=ties, crowds=crowds)
    np.testing.assert_allclose(own_precision(answers, real), coco_precision("pycocotools", answers, real), atol=1e-6)


def test_many_detections_of_an_image_are_scored_as_by_both_libraries():
    answers, real = random_case(np.random.default_rng(5), 12, crowds=True, boxes=400)
    assert max(np.bincount(each.classes).max() for each in answers if len(each)) > 100
    for library in ("pycocotools", "faster_coco_eval"):
        np.testing.assert_allclose(own_precision(answers, real), coco_precision(library, answers, real), atol=1e-6)


def test_scores_are_means_over_classes_that_have_boxes():
    answers, real = random_case(np.random.default_rng(1), 40)
    names = ["cat", "dog", "cow", "never"]
    scores = detection_scores(answers, real, names)
    precisions = coco_precision("pycocotools", answers, real)
    assert scores.map.value == pytest.approx(precisions.mean(), abs=1e-6)
    assert scores.map50.value == pytest.approx(precisions[0].mean(), abs=1e-6)
    assert list(scores.per_class) == names[:3]
    assert scores.per_class["dog"].value == pytest.approx(precisions[:, :, 1].mean(), abs=1e-6)
    assert scores.map.low < scores.map.value < scores.map.high
    assert (scores.images, scores.boxes) == (40, sum(map(len, real)))
    np.testing.assert_allclose(scores.class_curves["cow"].precision, precisions[0, :, 2], atol=1e-6)
    np.testing.assert_allclose([curve.precision for curve in scores.curves], precisions[[0, 5]].mean(axis=2), atol=1e-6)
    assert [curve.overlap for curve in scores.curves] == [0.5, 0.75]


def test_the_interval_is_that_of_drawing_and_scoring_anew():
    answers, real = random_case(np.random.default_rng(2), 60)
    scores = detection_scores(answers, real, ["a", "b", "c"], seed=3)
    random, values = np.random.default_rng(4), []
    for _ in range(150):
        drawn = random.integers(0, 60, 60)
        matches = match([answers[image] for image in drawn], [real[image] for image in drawn], CLASSES, OVERLAPS)
        values.append(np.nanmean(average_precisions(precision_curves(matches))))
    half = (np.percentile(values, 97.5) - np.percentile(values, 2.5)) / 2
    assert (scores.map.high - scores.map.low) / 2 == pytest.approx(half, rel=0.25)
    assert detection_scores(answers, real, ["a", "b", "c"], seed=3).map == scores.map


def test_right_answers_score_1_and_no_answers_0():
    _, real = random_case(np.random.default_rng(3), 10)
    right = [Detections(each.corners, each.classes, np.ones(len(each), dtype=np.float32)) for each in real]
    none = [Detections(*(array[:0] for array in (each.corners, each.classes, each.scores))) for each in right]
    assert detection_scores(right, real, "abc").map50 == pytest.approx(detection_scores(right, real, "abc").map)
    assert [getattr(detection_scores(right, real, "abc").map, each) for each in ("value", "low", "high")] == [1, 1, 1]
    assert detection_scores(none, real, "abc").map.value == 0
    empty = [Boxes.of([], []) for _ in real]
    assert detection_scores(right, empty, "abc").per_class == {}
    with pytest.raises(ValueError, match="9 answers for 10 images"):
        match(right[:9], real, CLASSES, OVERLAPS)


def test_agreement_pairs_boxes_of_one_class_once():
    def answer(*rows):
        corners, classes, scores = zip(*rows, strict=True) if rows else ((), (), ())
        return Detections(
            np.array(corners, dtype=np.float32).reshape(-1, 4),
            np.array(classes, dtype=np.int64),
            np.array(scores, dtype=np.float32),
        )

    box, near, far = (0, 0, 100, 100), (0, 0, 100, 95), (0, 0, 100, 80)
    some = [answer((box, 0, 0.9), (box, 0, 0.8), (box, 1, 0.3)), answer()]
    others = [answer((near, 0, 0.7), (far, 0, 0.6), (box, 2, 0.5)), answer()]
    agreed = box_agreement(some, others, 3)
    assert (agreed.first, agreed.second, agreed.matched) == (3, 3, 1)
    assert agreed.share == pytest.approx(1 / 3)
    assert box_agreement(some, others, 3, least_score=0.65).share == pytest.approx(2 / 3)
    assert box_agreement([], [], 3).share == 1
    many = [answer(*((box, 0, 0.5) for _ in range(150)))]
    assert box_agreement(many, many, 1).share == 1
