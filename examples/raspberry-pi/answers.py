"""From the outputs of a file to its answer, for each task, by what the card says: NumPy alone.

`ANSWERS` has a function for each task. It takes the outputs as floats, or as integers where they are classes, each with
one image; the card; and where the image lies in what the file saw. For a task of your own, add one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, List, Mapping, Optional, Sequence, Tuple

import numpy as np
from box_decoder import found_boxes

Json = Mapping[str, Any]
GUESSES = 5


@dataclass(frozen=True)
class Placed:
    """How an image came into what the file saw: (height, width) of the image and of all of it after resizing, px, and
    where the upper left corner of that lies, x and y: negative where something was cut off.
    """

    image: Tuple[int, int]
    resized: Tuple[int, int]
    offset: Tuple[int, int]

    def boxes_in_image(self, corners: np.ndarray) -> np.ndarray:
        """Boxes (n, 4) of what the file saw, x1, y1, x2, y2, in px of the image, cut at its borders."""
        (height, width), (tall, wide) = self.image, self.resized
        moved = (corners.astype(np.float64) - self.offset * 2) * ([width, height] * 2) / ([wide, tall] * 2)
        return moved.clip(0, [width, height] * 2)

    def mask_in_image(self, mask: np.ndarray, unseen: int) -> np.ndarray:
        """A mask of what the file saw as one of the image, uint8 (height, width); `unseen` where it was cut off."""
        (height, width), (tall, wide), (left, top) = self.image, self.resized, self.offset
        columns = np.floor((np.arange(width) + 0.5) * wide / width + left).astype(int)
        rows = np.floor((np.arange(height) + 0.5) * tall / height + top).astype(int)
        seen = ((rows >= 0) & (rows < mask.shape[0]))[:, None] & ((columns >= 0) & (columns < mask.shape[1]))
        found = mask[rows.clip(0, mask.shape[0] - 1)][:, columns.clip(0, mask.shape[1] - 1)]
        return np.where(seen, found, unseen).astype(np.uint8)


@dataclass(frozen=True)
class Told:
    """An answer: what is written down of it, and the class of each px of the image where the task says it."""

    said: Json
    mask: Optional[np.ndarray] = None


def classes(outputs: Sequence[np.ndarray], card: Json, _placed: Placed) -> Told:
    """One of the classes: the likeliest with their shares of certainty."""
    temperature = card.get("decision", {}).get("temperature")
    logits = outputs[0][0] if temperature is None else outputs[0][0] / np.float32(temperature)
    powers = np.exp(logits.astype(np.float64) - logits.max())
    shares = powers / powers.sum()
    likeliest = np.argsort(-shares, kind="stable")[:GUESSES]
    names = card["classes"]
    guesses = {names[place]: round(float(shares[place]), 4) for place in likeliest}
    return Told({"label": names[likeliest[0]], "guesses": guesses})


def labels(outputs: Sequence[np.ndarray], card: Json, _placed: Placed) -> Told:
    """Any number of labels: those whose confidence reaches their threshold, the surest first."""
    names, decision, logits = card["classes"], card["decision"], outputs[0][0]
    least = np.array(decision.get("thresholds") or [decision["threshold"]] * len(names))
    told = np.flatnonzero(logits >= np.log(least / (1 - least)))
    confidences = 1 / (1 + np.exp(-logits.astype(np.float64)))
    order = sorted(told, key=lambda place: -confidences[place])
    return Told({"labels": {names[place]: round(float(confidences[place]), 4) for place in order}})


def mask(outputs: Sequence[np.ndarray], card: Json, placed: Placed) -> Told:
    """A class for each px of the image, and the share of each class."""
    (first,) = outputs
    ignored = card.get("decision", {}).get("ignored", 255)
    found = placed.mask_in_image(first[0].argmax(axis=0) if first.ndim == 4 else first[0], ignored)
    values, counts = np.unique(found[found != ignored], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    shares = {card["classes"][values[each]]: round(float(counts[each] / counts.sum()), 4) for each in order}
    return Told({"shares": shares}, found)


def boxes(outputs: Sequence[np.ndarray], card: Json, placed: Placed) -> Told:
    """Objects: class, score, and left, top, right and bottom in px of the image, the best first."""
    decision = card["decision"]
    ((corners, found, scores),) = found_boxes(outputs, decision["decoding"])
    sides = placed.boxes_in_image(corners)
    shown = np.flatnonzero(scores >= np.float32(decision["shown_score"]))
    objects: List[Json] = [
        {
            "label": card["classes"][found[each]],
            "score": round(float(scores[each]), 4),
            "box": [round(float(side), 1) for side in sides[each]],
        }
        for each in shown
    ]
    return Told({"objects": objects})


ANSWERS: Mapping[str, Callable[[Sequence[np.ndarray], Json, Placed], Told]] = {
    "classification": classes,
    "multi-label": labels,
    "segmentation": mask,
    "detection": boxes,
}
"""What answers, by the task that a card names."""
