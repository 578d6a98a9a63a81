"""Which test images the report shows, and the files in which a run keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeopt.arrays import Pixels

FOLDER = "samples"


def sample_file(folder: Path, index: int) -> Path:
    """Where below `folder`, that of a run or of its report, test image `index` is kept as the files took it: a PNG,
    resized and cut.
    """
    return folder / FOLDER / f"{index}.png"


def keep_samples(images: Mapping[int, Pixels], folder: Path) -> None:
    """Writes images, uint8 (height, width, channels) by test index, into their files below `folder`."""
    from edgeopt.data.images import image_of  # Pillow: only a run that reports needs it

    for index, pixels in images.items():
        file = sample_file(folder, index)
        file.parent.mkdir(exist_ok=True)
        image_of(pixels).save(file, format="PNG", optimize=True)


def choose_samples(labels: Sequence[int], predicted: Sequence[int], limit: int = 24) -> tuple[int, ...]:
    """Indices of at most `limit` images, wrong answers first and at most two thirds of them,
    spread over the classes.
    """
    wrong = _in_turns([index for index, label in enumerate(labels) if predicted[index] != label], labels)
    right = _in_turns([index for index, label in enumerate(labels) if predicted[index] == label], labels)
    room_for_wrong = max(limit - len(right), -(-2 * limit // 3))
    shown = wrong[:room_for_wrong]
    return tuple(shown + right[: limit - len(shown)])


def _in_turns(indices: Sequence[int], labels: Sequence[int]) -> list[int]:
    """The indices with one of each class first, then a second of each, and so on."""
    seen: dict[int, int] = {}
    turn = {}
    for index in indices:
        turn[index] = seen.get(labels[index], 0)
        seen[labels[index]] = turn[index] + 1
    return sorted(indices, key=lambda index: (turn[index], labels[index], index))
