"""The answers of the task `segmentation`. This module goes to devices as it is: the standard library and NumPy.

Light at the top.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

IGNORED = 255
"""What a mask has where nobody says what is there."""


@dataclass(frozen=True)
class MaskAnswer:
    """A mask in few words: the classes on an image with the share of its places, the largest first."""

    shares: tuple[tuple[int, float], ...]


def answers(outputs: Sequence[Any], decision: Mapping[str, Any]) -> list[MaskAnswer]:
    """The classes of each image and their shares, of logits (n, classes, height, width) or of classes (n, height,
    width); `decision` is that of a card.
    """
    ignored = int(decision.get("ignored", IGNORED))
    return [MaskAnswer(shares_of(mask, ignored)) for mask in masks_in(outputs)]


def masks_in(outputs: Sequence[Any]) -> NDArray[Any]:
    """The classes of each place, integers (n, height, width), of logits or of classes themselves."""
    import numpy as np  # heavy; whoever has outputs has imported it

    first: NDArray[Any] = outputs[0]
    if first.ndim != 4:
        return first
    masks = np.empty((len(first), *first.shape[2:]), np.uint8 if first.shape[1] <= 256 else np.int64)
    for mask, logits in zip(masks, first, strict=True):  # one by one: a copy of all may not fit in memory
        mask[:] = logits.argmax(axis=0)
    return masks


def shares_of(mask: NDArray[Any], ignored: int) -> tuple[tuple[int, float], ...]:
    """The classes of a mask with their shares of the judged places, the largest first."""
    import numpy as np  # as above

    values, counts = np.unique(mask[mask != ignored], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return tuple((int(values[each]), float(counts[each] / counts.sum())) for each in order)
