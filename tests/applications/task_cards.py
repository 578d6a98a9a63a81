"""Cards of files of every task, what such files might return, and what edgeopt makes of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from random_heads import FCOS, RETINANET, SSD, random_heads

from edgeopt.cards.card import Card, TensorInfo
from edgeopt.plugins.registry import Registry, load_registry
from edgeopt.preprocessing import Preprocessing
from edgeopt.recipe.card_task import task_of_card
from edgeopt.tasks.classification import Classification
from edgeopt.tasks.multilabel import MultiLabel
from edgeopt_detection.decoding.description import BoxDecoding
from edgeopt_detection.decoding.reference import decode
from edgeopt_detection.task import Detection
from edgeopt_segmentation.parts.shares import masks_in
from edgeopt_segmentation.task import Segmentation


@cache
def registry() -> Registry:
    """All plugins, loaded once."""
    return load_registry()


NAMES = ('say "käse"', "back\\slash", "$price", "plain")
LABELS = Card(
    classes=NAMES,
    preprocessing=Preprocessing(24, resize=27, crop=24).to_json(),
    runtime="litert",
    precision="int8",
    role="optimized",
    recipe={"name": "tasks"},
    versions={"ai-edge-litert": "2.3.0", "pillow": "13.0.0"},
    input=TensorInfo("input", "float32", (1, 24, 24, 3), "NHWC"),
    outputs=(TensorInfo("logits", "int8", (1, 4), "NC", 0.03, -2),),
    task="multi-label",
    decision={"thresholds": [0.3, 0.5, 0.62, 0.9]},
)


def placed(card: Card, size: tuple[int, int], resize: tuple[int, int], fit: str) -> Card:
    preprocessing = Preprocessing(size, resize, size, fit=fit)  # type: ignore[arg-type]
    return replace(
        card,
        preprocessing=preprocessing.to_json(),
        input=TensorInfo("input", "float32", (1, *size, 3), "NHWC"),
    )


def masks(size: tuple[int, int], resize: tuple[int, int], fit: str, output: TensorInfo) -> Card:
    return replace(placed(LABELS, size, resize, fit), task="segmentation", decision={}, outputs=(output,))


def boxes(decoding: BoxDecoding, resize: tuple[int, int], fit: str, *, quantized: bool = False) -> Card:
    size = (decoding.height, decoding.width)
    decision = {"decoding": decoding.to_json(), "shown_score": 0.4}
    widths = (decoding.columns, 4, 1)
    outputs = tuple(
        TensorInfo(name, "int8", (1, decoding.anchors, width), "NDD", 0.06, -7)
        if quantized
        else TensorInfo(name, "float32", (1, decoding.anchors, width), "NDD")
        for name, width in zip(decoding.outputs, widths, strict=False)
    )
    card = replace(placed(LABELS, size, resize, fit), classes=NAMES[:3], task="detection", outputs=outputs)
    return replace(card, decision=decision)


def found(resize: tuple[int, int], fit: str) -> Card:
    """The card of a file that ends at boxes."""
    card, rows = boxes(SSD, resize, fit), SSD.most
    shapes = {"boxes": (1, rows, 4), "classes": (1, rows), "scores": (1, rows), "count": (1,)}
    outputs = tuple(TensorInfo(name, "float32", shape, "") for name, shape in shapes.items())
    return replace(card, outputs=outputs, decision={"ends": "boxes", **card.decision})


TASK_CARDS = {
    "calm": replace(LABELS, task="classification", decision={"temperature": 1.7}),
    "labels": LABELS,
    "half": replace(LABELS, outputs=(TensorInfo("logits", "float32", (1, 4), "NC"),), decision={"threshold": 0.5}),
    "masks": masks((14, 40), (14, 40), "letterbox", TensorInfo("masks", "float32", (1, 4, 14, 40), "NCHW")),
    "steps": masks((18, 30), (20, 34), "crop", TensorInfo("masks", "int8", (1, 4, 18, 30), "NCHW", 0.07, 3)),
    "places": masks((22, 13), (22, 13), "stretch", TensorInfo("masks", "uint8", (1, 22, 13), "NDD")),
    "wholes": masks((18, 30), (18, 30), "crop", TensorInfo("masks", "int64", (1, 18, 30), "NDD")),
    "ssd": boxes(SSD, (33, 40), "letterbox"),
    "retina": boxes(RETINANET, (36, 44), "crop", quantized=True),
    "fcos": boxes(FCOS, (33, 40), "stretch"),
    "found": found((36, 44), "crop"),
}
SIZES = ((61, 43), (30, 80))
"""Width and height of the images that are asked about."""


def returned(card: Card, seed: int) -> tuple[np.ndarray, ...]:
    """What a file of the card might return for one image: arrays of the types of its outputs."""
    random = np.random.default_rng(seed)
    if "ends" in card.decision:
        (of_card,) = decode([head[seed : seed + 1] for head in random_heads()[0][1]], SSD)
        rows = [np.zeros(info.shape, np.float32) for info in card.outputs]
        rows[0][0, : len(of_card)] = of_card.corners[:, [1, 0, 3, 2]] / np.float32([SSD.height, SSD.width] * 2)
        rows[1][0, : len(of_card)], rows[2][0, : len(of_card)] = of_card.classes, of_card.scores
        rows[3][0] = len(of_card)
        return tuple(rows)
    if card.task == "detection":
        heads = next(heads for decoding, heads in random_heads() if decoding.to_json() == card.decision["decoding"])
        plain = zip(card.outputs, (head[seed : seed + 1] for head in heads), strict=True)
        return tuple(
            head if info.scale is None else np.rint(head / info.scale + info.zero_point).clip(-128, 127).astype(np.int8)
            for info, head in plain
        )
    (info,) = card.outputs
    shape = tuple(int(side) for side in info.shape)
    if info.dtype == "float32":
        return (np.round(random.normal(0, 2, shape), 1).astype(np.float32),)  # some are equally good
    most = len(NAMES) if info.scale is None else 100
    return (random.integers(0, most, shape).astype(info.dtype),)


@dataclass(frozen=True)
class Expected:
    """What edgeopt makes of outputs, on an image: classes with confidences, a mask in px of the image, or objects."""

    guesses: tuple[tuple[str, float], ...] = ()
    mask: np.ndarray | None = None
    network_mask: np.ndarray | None = None
    objects: tuple[tuple[str, float, tuple[float, ...]], ...] = ()
    told: str = ""


def expected(card: Card, arrays: tuple[np.ndarray, ...], width: int, height: int) -> Expected:
    """The answer of the card's own task for an image of that size."""
    task = task_of_card(card, registry(), "the file")
    outputs = tuple(
        array if info.scale is None else (array.astype(np.float32) - info.zero_point) * np.float32(info.scale)
        for info, array in zip(card.outputs, arrays, strict=True)
    )
    (answer,) = task.decode(outputs)
    told = task.told(answer, card.classes)
    geometry = Preprocessing.from_json(card.preprocessing).geometry(height, width)
    if isinstance(task, Classification):
        shares = task.confidences(outputs[0])[0]
        order = np.argsort(-shares, kind="stable")
        return Expected(tuple((card.classes[place], float(shares[place])) for place in order), told=told)
    if isinstance(task, MultiLabel):
        pairs = zip(answer.labels, answer.confidences, strict=True)
        return Expected(tuple((card.classes[place], share) for place, share in pairs), told=told)
    if isinstance(task, Segmentation):
        (mask,) = masks_in(outputs)
        y, x = np.mgrid[:height, :width] + 0.5
        points = np.floor(geometry.points_to_network(np.stack([x, y], axis=-1))).astype(int)
        columns, rows = points[..., 0], points[..., 1]
        seen = (rows >= 0) & (rows < mask.shape[0]) & (columns >= 0) & (columns < mask.shape[1])
        found = mask[rows.clip(0, mask.shape[0] - 1), columns.clip(0, mask.shape[1] - 1)]
        return Expected(mask=np.where(seen, found, 255).astype(np.uint8), network_mask=mask, told=told)
    assert isinstance(task, Detection)
    (shown,) = task.shown(outputs)
    sides = geometry.boxes_to_original(shown.corners, clipped=True)
    objects = zip(shown.classes, shown.scores, sides, strict=True)
    return Expected(
        objects=tuple(
            (card.classes[label], float(score), tuple(corners.tolist())) for label, score, corners in objects
        ),
        told=told,
    )


def inside(card: Card, width: int, height: int) -> np.ndarray:
    """Which places of the file's input show the image and not the ground around it, bool (height, width)."""
    preprocessing = Preprocessing.from_json(card.preprocessing)
    tall, wide = preprocessing.size
    y, x = np.mgrid[:tall, :wide] + 0.5
    points = preprocessing.geometry(height, width).points_to_original(np.stack([x, y], axis=-1))
    found: np.ndarray = ((points >= 0) & (points < (width, height))).all(axis=-1)
    return found
