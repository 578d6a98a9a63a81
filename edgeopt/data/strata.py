"""Splits of images that are not each of one class: drawn evenly over what the task says of them, or as they come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.data.groups import draw_groups
from edgeopt.data.splits import (
    CALIBRATION_MOST,
    DRAWN,
    SPLITS,
    Drawing,
    Drawn,
    apportion,
    check_companions,
    choose,
    evenly,
    interleaved,
    originals_of,
    shared_groups,
    subset,
    take,
    with_copies,
)
from edgeopt.errors import DataError, Problem
from edgeopt.options import DatasetOptions
from edgeopt.tasks.base import Task
from edgeopt.types import RawDataset

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Counts = NDArray[np.int64]

_LEAST = len(SPLITS)  # images of a stratum: of fewer, one for each split cannot be had


def draw_by_strata(raw: RawDataset, options: DatasetOptions, task: Task, images: int | None = None) -> Drawn:
    """Draws train, calibration, validation and test as `draw` does, spread over the strata that `task` names.

    A stratum may be missing from a split: nothing is refused for it. Those with too few images are drawn together.

    Raises `DataError` for an unknown class and for an empty split.
    """
    check_companions(raw)
    classes = choose(raw.classes, options.classes, least=0)
    strata = {name: task.strata(split) for name, split in raw.splits.items()}
    codes, count = _codes(raw, strata)
    splits = {name: _given(raw, name, codes[name], count, options.shares.seed) for name in raw.splits}
    splits = _with_drawn(raw, splits, codes["train"], count, options)
    most = [bound for bound in (options.limit, images) if bound is not None]
    if most:
        least = len(SPLITS)  # of train at least two stay when calibration is taken out
        splits = {
            name: take(each, evenly(each.per_class(count), max(min(most), least)))[0] for name, each in splits.items()
        }
    train = splits["train"]
    total = min(CALIBRATION_MOST, max(round(options.shares.calibration * len(train)), 1))
    splits["calibration"], splits["train"] = take(train, _share(train, count, min(total, len(train) - 1)))
    splits["train"] = with_copies(raw, splits["train"])
    if empty := [name for name in SPLITS if not len(splits[name])]:
        hint = "give the data set more images, or raise `limit` or the shares"
        raise DataError(Problem(f"the {empty[0]} split would be empty", hint))
    ordered = {name: interleaved(splits[name], count, options.shares.seed) for name in SPLITS}
    return Drawn(classes, ordered, tuple(shared_groups(raw, splits)))


def _codes(raw: RawDataset, strata: Mapping[str, Sequence[Hashable] | None]) -> tuple[dict[str, Counts], int]:
    """The number of each image's stratum by raw split, int64 (n,), and how many strata there are."""
    train = strata["train"]
    counts = Counter(train if train is not None else ())
    known = sorted((each for each, images in counts.items() if images >= _LEAST), key=repr)
    code = {each: place for place, each in enumerate(known)}
    codes = {}
    for name, images in raw.splits.items():
        values = strata[name]
        if values is None:
            codes[name] = np.full(len(images), len(known), dtype=np.int64)
            continue
        if len(values) != len(images):
            raise DataError(f"the {name} split has {len(images)} images, and its task names strata of {len(values)}")
        codes[name] = np.array([code.get(each, len(known)) for each in values], dtype=np.int64)
    return codes, len(known) + 1


def _given(raw: RawDataset, name: str, codes: Counts, count: int, seed: int) -> Drawing:
    """A raw split, each stratum in its seeded order."""
    originals = originals_of(raw, name)
    orders = [
        np.random.default_rng([seed, stratum]).permutation(np.flatnonzero(originals & (codes == stratum)))
        for stratum in range(count)
    ]
    indices = np.concatenate(orders).astype(np.int64)
    return Drawing(name, indices, codes[indices])


def _with_drawn(
    raw: RawDataset, given: Mapping[str, Drawing], codes: Counts, count: int, options: DatasetOptions
) -> dict[str, Drawing]:
    """The given splits, and those that are missing, taken out of train: whole groups where it names groups."""
    splits = dict(given)
    shares = {name: float(getattr(options.shares, name)) for name in DRAWN if name not in splits}
    if shares and "train" in raw.groups:
        groups, originals = np.asarray(raw.groups["train"], dtype=str), originals_of(raw, "train")
        taken = draw_groups(groups[originals].tolist(), codes[originals], {}, shares, options.shares.seed)
        for name, chosen in taken.items():
            inside = np.isin(groups[splits["train"].indices], sorted(chosen))
            splits[name], splits["train"] = subset(splits["train"], inside), subset(splits["train"], ~inside)
        return splits
    whole = len(splits["train"])
    for name, share in shares.items():
        train = splits["train"]
        splits[name], splits["train"] = take(train, _share(train, count, max(1, round(share * whole))))
    return splits


def _share(drawing: Drawing, count: int, total: int) -> Counts:
    """How many of each stratum make `total` images, in the strata's own shares."""
    counts = drawing.per_class(count)
    return apportion(counts, total, np.zeros_like(counts), counts)
