"""Raw heads of detectors with ties, overlaps and numbers that are none, in files that Kotlin and JavaScript read."""

from __future__ import annotations

import json
import struct
from functools import cache
from pathlib import Path

import numpy as np

import edgeopt_detection
from edgeopt_detection.decoding.description import AnchorLevel, BoxDecoding, Candidates
from edgeopt_detection.decoding.reference import anchor_corners, decode

DECODING = Path(edgeopt_detection.__file__).parent / "decoding"
BOX_DECODER, BOX_DECODER_SCRIPT = DECODING / "BoxDecoder.kt", DECODING / "decoding.js"
IMAGES = 250  # of each description: a thousand in all

SQUARES = ((-8.0, -8.0, 8.0, 8.0), (-11.3, -5.65, 11.3, 5.65))
LEVELS = (
    AnchorLevel(rows=4, columns=5, origin=(4.1, 4.0), step=(8.2, 8.0), boxes=SQUARES),
    AnchorLevel(rows=2, columns=2, origin=(0, 0), step=(16, 20), boxes=((-16.0, -16.0, 16.0, 16.0),)),
)
SSD = BoxDecoding(
    height=33,
    width=40,
    classes=3,
    levels=LEVELS,
    scores="softmax",
    background=0,
    boxes="offsets",
    weights=(10, 10, 5, 5),
    scale_limit=4.135166556742356,
    score_threshold=0.05,
    iou_threshold=0.5,
    candidates=Candidates(per="class", most=15),
    most=20,
)
RETINANET = SSD.model_copy(
    update={
        "scores": "sigmoid",
        "background": None,
        "weights": (1.0, 1.0, 1.0, 1.0),
        "candidates": Candidates(per="level", most=25),
    }
)
FCOS = SSD.model_copy(
    update={
        "scores": "sigmoid-centerness",
        "background": None,
        "boxes": "distances",
        "scale_limit": None,
        "score_threshold": 0.2,
        "iou_threshold": 0.6,
        "candidates": Candidates(per="level", most=30),
    }
)
LAST_BACKGROUND = SSD.model_copy(update={"background": 3, "iou_threshold": 0.0, "most": 5})


@cache
def random_heads() -> tuple[tuple[BoxDecoding, tuple[np.ndarray, ...]], ...]:
    random = np.random.default_rng(0)
    cases = []
    for decoding in (SSD, RETINANET, FCOS, LAST_BACKGROUND):
        widths = (decoding.columns, 4, 1)[: len(decoding.outputs)]
        heads = [random.normal(0, 2, (IMAGES, decoding.anchors, width)).astype(np.float32) for width in widths]
        heads[0][::2] = np.round(heads[0][::2] * 4) / 4  # as int8 files answer: many are equally good
        heads[1][1::4] = np.round(heads[1][1::4])
        heads[0][7, :5], heads[0][8, 3], heads[1][9, ::3] = np.nan, np.inf, np.nan
        heads[1][10, ::4], heads[0][11], heads[1][12] = -np.inf, 1e38, 3e38
        heads[0][13], heads[1][14] = -1e38, 0
        cases.append((decoding, tuple(heads)))
    return tuple(cases)


def write_heads(folder: Path) -> tuple[tuple[BoxDecoding, tuple[np.ndarray, ...]], ...]:
    """Writes `decodings.json`, and `heads`: of each image its logits, boxes and centerness, float32."""
    cases = random_heads()
    (folder / "decodings.json").write_text(json.dumps([decoding.to_json() for decoding, _ in cases]))
    with (folder / "heads").open("wb") as file:
        for _, heads in cases:
            for image in range(IMAGES):
                file.writelines(head[image].tobytes() for head in heads)
    return cases


def expected_boxes(cases: tuple[tuple[BoxDecoding, tuple[np.ndarray, ...]], ...]) -> bytes:
    """The reference's boxes as the other languages write them: how many, and corners, score and label of each."""
    written = bytearray()
    for decoding, heads in cases:
        for found in decode(heads, decoding):
            written += struct.pack("<i", len(found))
            for corners, score, label in zip(found.corners, found.scores, found.classes, strict=True):
                written += struct.pack("<5fi", *corners, score, label)
    return bytes(written)


def heads_of(boxes, decoding):
    """What a network that knows the boxes would answer: at the anchors that overlap a box most, its class and place."""
    anchors = anchor_corners(decoding)
    sizes = anchors[:, 2:] - anchors[:, :2]
    logits = np.full((len(boxes), decoding.anchors, decoding.columns), -8.0, dtype=np.float32)
    numbers = np.zeros((len(boxes), decoding.anchors, 4), dtype=np.float32)
    centerness = np.full((len(boxes), decoding.anchors, 1), 8.0, dtype=np.float32)
    if decoding.background is not None:
        logits[..., decoding.background] = 0
    weights = np.asarray(decoding.weights)
    for image, each in enumerate(boxes):
        taken = set()
        for corners, label in zip(each.corners.astype(np.float64), each.classes, strict=True):
            middle = (corners[:2] + corners[2:]) / 2
            far = np.abs((anchors[:, :2] + anchors[:, 2:]) / 2 - middle).sum(axis=1)
            place = next(int(each) for each in np.argsort(far, kind="stable") if each not in taken)
            taken.add(place)
            if decoding.boxes == "offsets":
                moved = (middle - (anchors[place, :2] + anchors[place, 2:]) / 2) / sizes[place]
                numbers[image, place] = (
                    np.concatenate([moved, np.log((corners[2:] - corners[:2]) / sizes[place])]) * weights
                )
            else:
                centre = (anchors[place, :2] + anchors[place, 2:]) / 2
                numbers[image, place] = np.concatenate([centre - corners[:2], corners[2:] - centre]) / np.tile(
                    sizes[place], 2
                )
            logits[image, place, label + (decoding.background is not None and label >= decoding.background)] = 8
    return (logits, numbers, centerness)[: len(decoding.outputs)]
