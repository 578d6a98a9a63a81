"""Batches of a split as tensors: which images, in which order, on which device of several.

What a batch holds depends on the seed, the epoch and the batch's number alone, so a training that resumes at an epoch
sees the batches that it would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from edgeopt.data.cache import CachedSplit
from edgeopt.plugins import Augmentation, Preprocessing, Split, Task, targets_of


def derived_seed(*parts: int) -> int:
    """One seed from several, int64 and non-negative; different parts give unrelated seeds."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


@dataclass(frozen=True)
class Normalize:
    """`Preprocessing.normalize` for tensors: the same arithmetic in the same order, so the same floats.

    Takes uint8 (n, channels, height, width) and returns float32 of that shape, channels-last in memory where asked.
    """

    preprocessing: Preprocessing
    channels_last: bool

    def __call__(self, pixels: Tensor) -> Tensor:
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        scale, offset = (
            torch.tensor(values, dtype=torch.float32, device=pixels.device).reshape(1, -1, 1, 1)
            for values in self.preprocessing.scale_and_offset()
        )
        return pixels.to(torch.float32, memory_format=layout).mul_(scale).add_(offset)


@dataclass(frozen=True)
class BatchRequest:
    """One batch that a loader is asked for; `seed` is that of its augmentation."""

    indices: NDArray[np.int64]
    seed: int = 0


@dataclass
class Shuffled(Sampler[BatchRequest]):
    """The training batches of one epoch after another, of one device among `devices`.

    Each step takes `batch_size` images a device from a seeded order, that of `order` where it is given. What is left at
    the end is shared evenly; a batch of one image is left out, because BatchNorm cannot train on it. `most` bounds the
    batches of an epoch.
    """

    images: int
    batch_size: int
    seed: int
    device: int = 0
    devices: int = 1
    most: int | None = None
    order: Callable[[int], NDArray[np.int64]] | None = None
    epoch: int = field(default=0, init=False)

    def set_epoch(self, epoch: int) -> None:
        """The epoch to draw next; Lightning calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        whole, rest = divmod(self.images, self.batch_size * self.devices)
        batches = whole + (rest // self.devices >= 2)
        return batches if self.most is None else min(batches, self.most)

    def __iter__(self) -> Iterator[BatchRequest]:
        seed = derived_seed(self.seed, self.epoch)
        order = self.order(seed) if self.order else np.random.default_rng(seed).permutation(self.images)
        step = self.batch_size * self.devices
        for number in range(len(self)):
            together = order[number * step : (number + 1) * step]
            share = len(together) // self.devices
            mine = together[self.device * share : (self.device + 1) * share]
            yield BatchRequest(mine, derived_seed(seed, number, self.device))


@dataclass(frozen=True)
class Batches(Dataset[tuple[Tensor, Any]]):
    """Answers requests with pixels, uint8 (n, channels, height, width) and channels-last, and the task's batch of
    targets, or what it makes of those of mixed images.
    """

    split: Split
    task: Task
    augmentation: Augmentation | None = None
    mixing: Mixing | None = None

    def __getitem__(self, request: BatchRequest) -> tuple[Tensor, Any]:
        pixels = torch.from_numpy(self.split.pixels(request.indices.tolist())).permute(0, 3, 1, 2)
        batch = self.task.batch(targets_of(self.split)[request.indices])
        generator = torch.Generator().manual_seed(request.seed)
        if self.augmentation is not None:
            from edgeopt.data.augment import augment_moved  # only where asked for

            if self.augmentation.policy != "none":
                from edgeopt_lightning.fit.policy import changed_by_policy  # as above

                pixels = changed_by_policy(pixels, self.augmentation, generator)
            if self.augmentation.mosaic:
                from edgeopt.data.mosaic import drawn_tiles  # as above

                height, width = pixels.shape[-2:]
                tiles = drawn_tiles(len(pixels), height, width, self.augmentation.mosaic, generator)
                pixels, batch = tiles.images(pixels), self.task.tiled(batch, tiles)
            crops = None
            if self.augmentation.iou_crop:
                chance = torch.rand(len(pixels), generator=generator) < self.augmentation.iou_crop
                height, width = pixels.shape[-2:]
                crops = self.task.crops(batch, height, width, generator)
                crops = torch.where(chance[:, None], crops, crops.new_tensor([0.0, 0.0, width, height]))
            pixels, moves = augment_moved(pixels, self.augmentation, generator, crops)
            batch = self.task.augmented(batch, moves)
        if self.mixing is not None and self.augmentation is not None and self.augmentation.mixes:
            from edgeopt.data.mixing import mixed_images  # as above

            pixels, partner, share = mixed_images(pixels, self.augmentation, generator)
            batch = self.mixing.task.mixed(batch, partner, share, self.mixing.classes)
        return pixels, batch


@dataclass(frozen=True)
class Mixing:
    """What makes targets of mixed images: the task, and how many classes the data set has."""

    task: Task
    classes: int


def training_loader(
    split: Split,
    task: Task,
    shuffled: Shuffled,
    augmentation: Augmentation,
    workers: int,
    *,
    mixing: Mixing | None = None,
    pin_memory: bool = False,
) -> DataLoader[tuple[Tensor, Any]]:
    """Loads the batches of `shuffled`, augmented; `workers` processes read images that are not cached."""
    changed = None if augmentation == Augmentation() else augmentation
    return _loader(Batches(split, task, changed, mixing), shuffled, workers, pin_memory=pin_memory)


def ordered_loader(
    split: Split, task: Task, indices: NDArray[np.int64], batch_size: int, workers: int
) -> DataLoader[tuple[Tensor, Any]]:
    """Loads the images `indices` in their order, as they are."""
    requests = [BatchRequest(indices[start : start + batch_size]) for start in range(0, len(indices), batch_size)]
    return _loader(Batches(split, task), requests, workers)


def _loader(
    batches: Batches, requests: Shuffled | list[BatchRequest], workers: int, *, pin_memory: bool = False
) -> DataLoader[tuple[Tensor, Any]]:
    return DataLoader(
        batches,
        sampler=requests,
        batch_size=None,
        num_workers=0 if isinstance(batches.split, CachedSplit) else workers,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # a loader draws a seed for its workers: not from everybody's generator
    )
