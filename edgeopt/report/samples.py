"""Which test images the report shows."""

from __future__ import annotations

from collections.abc import Sequence


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
