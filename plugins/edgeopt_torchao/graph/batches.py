"""Images of a split as a model takes them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from edgeopt.plugins import ModelState, Split


def batches(state: ModelState, split: Split, batch_size: int, count: int) -> Iterator[Tensor]:
    """The first `count` images of a split as inputs of the model, float32 (n, channels, height, width)."""
    for start in range(0, min(count, len(split)), batch_size):
        pixels = split.pixels(range(start, min(start + batch_size, count, len(split))))
        yield torch.from_numpy(state.preprocessing.normalize(pixels))
