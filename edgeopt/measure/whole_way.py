"""The whole way of one image through a file: what an app waits for.

This module goes to devices as it is, with the others of `MODULES` and Pillow.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from edgeopt.plugins.predictor import Predictor

T = TypeVar("T")

MODULES = (
    "edgeopt.data.images",
    "edgeopt.errors",
    "edgeopt.measure.whole_way",
    "edgeopt.preprocessing.decoded",
    "edgeopt.preprocessing.description",
    "edgeopt.preprocessing.geometry",
)
"""What a device needs of edgeopt for it, besides what it has for calls and for answers of a task."""

PARTS = ("decode", "preprocess", "file", "answer")
"""The parts of the way, in their order."""


def whole_way(
    encoded: bytes,
    name: str,
    preprocessing: dict[str, Any],
    feed: Callable[[Any], Any],
    file: Predictor,
    answers: Callable[[Any], Any],
    warmup: int,
    runs: int,
) -> list[tuple[float, ...]]:
    """Takes the image file `encoded` the whole way through an open file, `runs` times after `warmup` times that do not
    count; returns the milliseconds of `PARTS` of each.

    `preprocessing` is that of the file's card, `feed` makes what the file takes of uint8 (1, height, width, channels),
    and `answers` makes answers of its outputs, as `Task.decode` does.
    """
    import numpy as np  # heavy, as all below: whoever only asks for it does without

    from edgeopt.data.images import open_image
    from edgeopt.plugins.predictor import timed_call
    from edgeopt.preprocessing.description import Preprocessing

    prepare = Preprocessing.from_json(preprocessing)

    def once() -> tuple[float, ...]:
        image, opened = _timed(lambda: open_image(encoded, name))
        batch, preprocess = _timed(lambda: feed(prepare.pixels(image)[np.newaxis]))
        outputs, call = timed_call(file, lambda: file.predict(batch))
        _, answer = _timed(lambda: answers(outputs))
        return opened, preprocess, call, answer

    for _ in range(warmup):
        once()
    return [once() for _ in range(runs)]


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    """What a call returns, and how long it took, ms."""
    start = time.perf_counter()
    result = call()
    return result, (time.perf_counter() - start) * 1e3
