"""What scoring boxes costs: 5,000 images of 20 boxes, beside faster-coco-eval on the same answers in the same process.

Ours gives mean average precision and each class's with intervals; the other gives values alone. Both begin with what a
run has: ours with arrays of each image, the other with COCO's dictionaries, whose making is not counted. The values must
be the same.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from bars import Bar, finish

from edgeopt_detection.boxes import Boxes, Detections
from edgeopt_detection.scores.average_precision import detection_scores

LIMIT = 1.2
_EDGE = 640


def answers_and_boxes(images: int, boxes: int, classes: int) -> tuple[list[Detections], list[Boxes]]:
    """Random boxes, and answers that lie about where they are."""
    random = np.random.default_rng(0)
    answers, real = [], []
    for _ in range(images):
        low = random.uniform(0, _EDGE - 240, (boxes, 2))
        corners = np.concatenate([low, low + random.uniform(10, 240, (boxes, 2))], axis=1).astype(np.float32)
        labels = random.integers(0, classes, boxes)
        real.append(Boxes.of(corners, labels))
        moved = corners + random.normal(0, 6, (boxes, 4)).astype(np.float32)
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        scores = random.random(boxes).astype(np.float32)
        order = np.argsort(-scores)
        taken = np.where(random.random(boxes) < 0.85, labels, random.integers(0, classes, boxes))
        answers.append(Detections(moved[order], taken[order], scores[order]))
    return answers, real


def in_coco_form(
    answers: Sequence[Detections], real: Sequence[Boxes], classes: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The same as COCO's files have it."""

    def sides(corners: Any) -> list[float]:
        x1, y1, x2, y2 = (float(each) for each in corners)
        return [x1, y1, x2 - x1, y2 - y1]

    def rows(image: int, each: Any) -> list[dict[str, Any]]:
        return [
            {"image_id": image, "category_id": int(label), "bbox": sides(corners)}
            for corners, label in zip(each.corners, each.classes, strict=True)
        ]

    annotations = [row for image, each in enumerate(real) for row in rows(image, each)]
    for number, row in enumerate(annotations):
        row |= {"id": number + 1, "iscrowd": 0, "area": row["bbox"][2] * row["bbox"][3]}
    results = []
    for image, each in enumerate(answers):
        results += [row | {"score": float(score)} for row, score in zip(rows(image, each), each.scores, strict=True)]
    images = [{"id": image, "width": _EDGE, "height": _EDGE} for image in range(len(real))]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": label, "name": str(label)} for label in range(classes)],
    }, results


def seconds(call: Callable[[], float]) -> tuple[float, float]:
    """Processor time of a call, and what it gives: the machine may be busy, and neither library uses a second core."""
    started = time.process_time()
    value = call()
    return time.process_time() - started, value


def main(argv: Sequence[str] | None = None) -> None:
    """Times both in turns."""
    from faster_coco_eval import COCO, COCOeval_faster

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000, help="how many images")
    parser.add_argument("--boxes", type=int, default=20, help="boxes of each, and answers")
    parser.add_argument("--classes", type=int, nargs="+", default=[80, 1], help="how many classes, one case each")
    parser.add_argument("--rounds", type=int, default=2, help="how often each is timed; the best time counts")
    given = parser.parse_args(argv)
    bars = []
    for classes in given.classes:
        answers, real = answers_and_boxes(given.images, given.boxes, classes)
        data, results = in_coco_form(answers, real, classes)
        names = [str(label) for label in range(classes)]

        def ours(answers: Any = answers, real: Any = real, names: Any = names) -> float:
            return detection_scores(answers, real, names).map.value

        def other(data: Any = data, results: Any = results) -> float:
            with contextlib.redirect_stdout(io.StringIO()):
                truth = COCO(data)
                evaluation = COCOeval_faster(truth, truth.loadRes(results), "bbox")
                evaluation.evaluate()
                evaluation.accumulate()
                evaluation.summarize()
            return float(evaluation.stats[0])

        timed = [(seconds(ours), seconds(other)) for _ in range(given.rounds)]
        own, own_value = min(each[0] for each in timed)
        others, other_value = min(each[1] for each in timed)
        print(
            f"{classes} classes: {own:.2f} s with intervals, faster-coco-eval {others:.2f} s; {own_value:.6f} and {other_value:.6f}"
        )
        bars.append(Bar(f"time for {classes} classes beside faster-coco-eval's", own / others, LIMIT))
        bars.append(Bar(f"difference of the values for {classes} classes", abs(own_value - other_value), 1e-6))
    finish(*bars)


if __name__ == "__main__":
    main()
