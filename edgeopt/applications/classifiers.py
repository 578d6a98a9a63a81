"""What the lines and apps of this room are for: files whose only output are a classifier's logits."""

from __future__ import annotations

from collections.abc import Sequence

from edgeopt.cards.card import Card, TensorInfo

NO_CLASSES = "lines and apps are made for files that give a number for each class, and this one gives"
NO_CLASSES_HINT = "feed it with edgeopt's own predictor, or write the app by its card.json"


def is_of_classes(card: Card) -> bool:
    """Whether the file gives a number for each class and nothing else, or does not say what it gives."""
    return not card.outputs or (len(card.outputs) == 1 and card.outputs[0].shape[1:] == (len(card.classes),))


def described(outputs: Sequence[TensorInfo]) -> str:
    """Outputs in words, such as "boxes (1, 100, 4) and scores (1, 100)"."""
    return " and ".join(f"{each.name} ({', '.join(map(str, each.shape))})" for each in outputs)
