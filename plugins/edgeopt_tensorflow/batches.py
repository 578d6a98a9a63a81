"""Training images for Keras, an epoch at a time, in an order that follows from the seed and the epoch alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeopt.data.cache import epoch_order
from edgeopt.plugins import TrainingData
from edgeopt_tensorflow.augment import augment
from edgeopt_tensorflow.runtime import keras

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Epoch(keras.utils.PyDataset):  # type: ignore[misc]
    """The batches of one epoch: normalized float32 (n, height, width, channels), and labels as float32 (n, classes).

    A last, smaller batch is left out where there is another: BatchNorm learns little from it.
    """

    def __init__(self, data: TrainingData, batch_size: int, seed: int, epoch: int, most: int | None = None) -> None:
        super().__init__()
        self._data = data
        self._seed = (seed, epoch)
        order = epoch_order(data.train, self._seed)
        count = max(1, len(order) // batch_size)
        self._batches = [
            order[start * batch_size : (start + 1) * batch_size] for start in range(min(count, most or count))
        ]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        chosen = self._batches[index]
        random = np.random.default_rng((*self._seed, index))
        pixels = augment(self._data.train.pixels(chosen.tolist()), self._data.augmentation, random)
        images = self._data.preprocessing.normalize(pixels).transpose(0, 2, 3, 1)
        labels = np.eye(len(self._data.classes), dtype=np.float32)[self._data.train.labels[chosen]]
        return np.ascontiguousarray(images), labels
