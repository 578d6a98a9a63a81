"""Which image goes into which split: classes are chosen, missing splits drawn, and no image is in two of them.

Every class has one seeded order of its images, and splits take from its front. So a run with fewer images sees a
subset of a larger one's, and a class more or less moves no image of the other classes from test to train. Inside a
split the classes are interleaved, so that any number of its first images is spread over them.
"""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.data.groups import draw_groups
from edgeopt.errors import DataError, Problem, did_you_mean, printable
from edgeopt.options import DatasetOptions
from edgeopt.types import RawDataset

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.arrays import Labels

    Counts = NDArray[np.int64]

#: In the order in which they are read and reported.
SPLITS = ("train", "calibration", "validation", "test")
CALIBRATION_MOST = 512
#: Splits that are drawn where the data set does not come with them.
DRAWN = ("test", "validation")


@dataclass(frozen=True, eq=False)
class Drawing:
    """One split: the raw split that its images stand in, their places there, and their labels after relabelling:
    their classes, or what the task has them drawn by.
    """

    source: str
    indices: NDArray[np.int64]
    labels: Labels

    def __len__(self) -> int:
        return len(self.indices)

    def per_class(self, classes: int) -> Counts:
        """Number of images of each class, int64 (classes,)."""
        return np.bincount(self.labels, minlength=classes).astype(np.int64)


@dataclass(frozen=True)
class Drawn:
    """The classes in the order of their labels, the four splits, and what is worth a warning."""

    classes: tuple[str, ...]
    splits: Mapping[str, Drawing]
    warnings: tuple[str, ...] = ()


def draw(raw: RawDataset, options: DatasetOptions, images: int | None = None) -> Drawn:
    """Chooses classes and draws train, calibration, validation and test; no image is in two of them.

    Missing splits are taken from "train" by stratified shares, each class apart, at least one image of each; where
    the data set names groups, by whole groups. `limit` cuts a split evenly over the classes; calibration is then taken
    out of train, and changed copies of what is trained on come to it. `images` is a second limit that is raised,
    where it must be, so that every class stays.

    Raises `DataError` for an unknown class, a class without images, a class too small to be split, and an empty
    split.
    """
    check_companions(raw)
    classes = choose(raw.classes, options.classes)
    given = {name: _given(raw, name, classes, options.shares.seed) for name in raw.splits}
    _require_images(given["train"], classes)
    drawn = _drawn_by_groups if "train" in raw.groups else _with_drawn
    splits = _limited(drawn(raw, given, classes, options), classes, options.limit, images)
    splits["calibration"], splits["train"] = _calibration(splits["train"], len(classes), options.shares.calibration)
    splits["train"] = with_copies(raw, splits["train"])
    if empty := [name for name in SPLITS if not len(splits[name])]:
        hint = "give the data set more images, or raise `limit` or the shares"
        if empty == ["calibration"]:
            hint = "it comes out of train, which has one image of each class: raise `limit`, or lower the other shares"
        raise DataError(Problem(f"the {empty[0]} split would be empty", hint))
    warnings = (*_warnings(splits, classes), *shared_groups(raw, splits))
    ordered = {name: interleaved(splits[name], len(classes), options.shares.seed) for name in SPLITS}
    return Drawn(classes, ordered, warnings)


def choose(known: tuple[str, ...], wanted: tuple[str, ...] | None, least: int = 2) -> tuple[str, ...]:
    """The classes to keep, in the order of their labels: at least so many."""
    alike: dict[str, str] = {}
    for name in known:  # texts look the same to a person, whichever way their accents are written
        if printable(name) != name:
            raise DataError(f"the data set gives a class {name}, which is not UTF-8")
        composed = unicodedata.normalize("NFC", name)
        if composed in alike:
            both = "" if alike[composed] == name else f", written {alike[composed]!a} and {name!a}"
            raise DataError(
                Problem(f"two classes are called {name!r}{both}", "give each class a name of its own, or make them one")
            )
        alike[composed] = name
    chosen = known if wanted is None else tuple(alike.get(unicodedata.normalize("NFC", each), each) for each in wanted)
    problems = [
        Problem(f"the data set has no class {name!r}", did_you_mean(name, known), option="classes")
        for name in chosen
        if name not in known
    ]
    if problems:
        raise DataError(*problems)
    if len(chosen) < least:
        raise DataError(
            Problem(f"the data set has {len(chosen)} class", "a classifier needs at least two classes to tell apart")
        )
    return chosen


def _given(raw: RawDataset, name: str, classes: tuple[str, ...], seed: int) -> Drawing:
    """A raw split with the chosen classes only, relabelled, each class in its seeded order."""
    labels = _labels_of(raw, name)
    strangers = int(((labels < 0) | (labels >= len(raw.classes))).sum())
    if strangers:
        raise DataError(
            Problem(
                f"{strangers} labels of the {name} split are not one of the {len(raw.classes)} classes",
                "an unlabelled split cannot be used; leave it out, and one is drawn from train",
            )
        )
    originals = originals_of(raw, name)
    order = []
    for label, class_name in enumerate(classes):
        indices = np.flatnonzero(originals & (labels == raw.classes.index(class_name)))
        random = np.random.default_rng([seed, zlib.crc32(class_name.encode())])
        order.append((random.permutation(indices), np.full(len(indices), label, dtype=np.int64)))
    return Drawing(name, *(np.concatenate(parts) for parts in zip(*order, strict=True)))


def _labels_of(raw: RawDataset, name: str) -> Labels:
    """The class of each image of a raw split; raises for anything but one whole number an image."""
    labels = np.asarray(raw.splits[name].labels)
    hint = "a data set gives one class index an image, int64 (n,): neither one-hot nor several labels"
    if labels.shape != (len(raw.splits[name]),):
        what = f"the {name} split has {len(raw.splits[name])} images and labels of shape {labels.shape}"
        raise DataError(Problem(what, hint))
    if len(labels) and labels.dtype.kind not in "iu":
        raise DataError(Problem(f"the labels of the {name} split are {labels.dtype}, not whole numbers", hint))
    return labels.astype(np.int64)


def _require_images(train: Drawing, classes: tuple[str, ...]) -> None:
    """Raises for classes that train has no image of."""
    counts = train.per_class(len(classes))
    empty = [name for name, count in zip(classes, counts, strict=True) if count == 0]
    if empty:
        names = ", ".join(repr(name) for name in empty)
        raise DataError(
            Problem(f"no training image of class {names}", "add images of it, or leave it out of `classes`")
        )


def check_companions(raw: RawDataset) -> None:
    """Raises where groups or copies do not fit the images."""
    for what, values in (("groups", raw.groups), ("copies", raw.copies)):
        for name, each in values.items():
            if name not in raw.splits or len(each) != len(raw.splits[name]):
                images = len(raw.splits[name]) if name in raw.splits else 0
                raise DataError(f"the {name} split has {images} images, and {what} name {len(each)}")


def originals_of(raw: RawDataset, name: str) -> NDArray[np.bool_]:
    """Which images of a raw split are no changed copies, bool (n,)."""
    if name not in raw.copies:
        return np.ones(len(raw.splits[name]), dtype=bool)
    return np.asarray(raw.copies[name]) < 0


def with_copies(raw: RawDataset, train: Drawing) -> Drawing:
    """Train, and the changed copies of its images."""
    if train.source not in raw.copies:
        return train
    copy_of = np.asarray(raw.copies[train.source])
    label_of = np.full(len(copy_of), -1, dtype=np.int64)
    label_of[train.indices] = train.labels
    copies = np.flatnonzero((copy_of >= 0) & (label_of[copy_of] >= 0))
    labels = np.concatenate([train.labels, label_of[copy_of[copies]]])
    return replace(train, indices=np.concatenate([train.indices, copies]), labels=labels)


def _drawn_by_groups(
    raw: RawDataset, given: Mapping[str, Drawing], classes: tuple[str, ...], options: DatasetOptions
) -> dict[str, Drawing]:
    """The given splits, and those that are missing: whole groups out of train."""
    splits = dict(given)
    shares = {name: float(getattr(options.shares, name)) for name in DRAWN if name not in splits}
    if not shares:
        return splits
    groups = np.asarray(raw.groups["train"], dtype=str)
    originals = originals_of(raw, "train")
    labels = _labels_of(raw, "train")
    needed = {raw.classes.index(name): name for name in classes}
    taken = draw_groups(groups[originals].tolist(), labels[originals], needed, shares, options.shares.seed)
    for name, chosen in taken.items():
        inside = np.isin(groups[splits["train"].indices], sorted(chosen))
        splits[name], splits["train"] = subset(splits["train"], inside), subset(splits["train"], ~inside)
    return splits


def _with_drawn(
    raw: RawDataset,  # noqa: ARG001 - the images alone say nothing here
    given: Mapping[str, Drawing],
    classes: tuple[str, ...],
    options: DatasetOptions,
) -> dict[str, Drawing]:
    """The given splits, and those that are missing, taken out of train."""
    splits = dict(given)
    missing = [name for name in DRAWN if name not in splits]
    counts = splits["train"].per_class(len(classes))
    small = [f"{name!r} ({count})" for name, count in zip(classes, counts, strict=True) if count <= len(missing)]
    if small:
        raise DataError(
            Problem(
                f"too few images to draw train, {' and '.join(sorted(missing))} from: class {', '.join(small)}",
                f"a class needs at least {len(missing) + 1} images",
            )
        )
    left = counts.copy()
    for later, name in enumerate(missing, start=1):
        total = round(float(getattr(options.shares, name) * counts.sum()))
        stays = 1 + len(missing) - later  # one image for train and one for each split still to be drawn
        taken = apportion(counts, total, np.ones_like(counts), left - stays)
        left -= taken
        splits[name], splits["train"] = take(splits["train"], taken)
    return splits


def _limited(
    splits: Mapping[str, Drawing], classes: tuple[str, ...], limit: int | None, images: int | None
) -> dict[str, Drawing]:
    """The splits, each cut to the smaller of the two limits."""
    if limit is not None and limit < len(classes):
        raise DataError(
            Problem(
                f"limit = {limit} is less than the {len(classes)} classes",
                "allow at least one image of each",
                option="limit",
            )
        )
    # two of a class: one to train on and one to calibrate with
    most = [bound for bound in (limit, images and max(images, 2 * len(classes))) if bound is not None]
    if not most:
        return dict(splits)
    return {
        name: take(drawing, evenly(drawing.per_class(len(classes)), min(most)))[0] for name, drawing in splits.items()
    }


def _calibration(train: Drawing, classes: int, share: float) -> tuple[Drawing, Drawing]:
    """Calibration images, one of each class where it has two, and the training images that are left."""
    counts = train.per_class(classes)
    most = np.maximum(counts - 1, 0)
    least = np.minimum(most, 1)
    total = min(CALIBRATION_MOST, max(round(share * len(train)), int(least.sum())))
    if least.sum() > total:
        least = np.zeros_like(least)
    return take(train, apportion(counts, total, least, most))


def apportion(counts: Counts, total: int, least: Counts, most: Counts) -> Counts:
    """How many of each class a share of `total` images takes, within `least` and `most` a class.

    All arrays int64 (classes,). Source: the largest-remainder method (A. Hamilton, 1792), which keeps the sum exact.
    """
    total = int(np.clip(total, least.sum(), most.sum()))
    quotas = counts * (total / max(1, counts.sum()))
    taken: Counts = np.clip(np.floor(quotas).astype(np.int64), least, most)
    while (missing := total - int(taken.sum())) != 0:
        step = 1 if missing > 0 else -1
        free = np.flatnonzero(taken < most if missing > 0 else taken > least)
        by_remainder = free[np.argsort(-step * (quotas - taken)[free], kind="stable")]
        taken[by_remainder[: abs(missing)]] += step
    return taken


def evenly(counts: Counts, total: int) -> Counts:
    """How many of each class make at most `total` images, as even as the classes' `counts` allow;
    int64 (classes,).
    """
    taken = np.zeros_like(counts)
    total = min(total, int(counts.sum()))
    while (missing := total - int(taken.sum())) > 0:
        free = np.flatnonzero(taken < counts)[:missing]
        taken[free] += np.minimum(max(1, missing // len(free)), (counts - taken)[free])
    return taken


def take(drawing: Drawing, taken: Counts) -> tuple[Drawing, Drawing]:
    """The first `taken` images of each class, and the rest; both in the order that they had."""
    starts = np.concatenate([[0], np.cumsum(drawing.per_class(len(taken)))])
    place_in_class = np.arange(len(drawing)) - starts[drawing.labels]
    chosen = place_in_class < taken[drawing.labels]
    return subset(drawing, chosen), subset(drawing, ~chosen)


def subset(drawing: Drawing, chosen: NDArray[np.bool_]) -> Drawing:
    """The chosen images, bool (n,), in the order that they had."""
    return replace(drawing, indices=drawing.indices[chosen], labels=drawing.labels[chosen])


def interleaved(drawing: Drawing, classes: int, seed: int) -> Drawing:
    """The drawing in an order of which every beginning is spread over the classes, each in the order that it had.

    The j-th of a class's n images stands at j / n of the way, and chance, from `seed`, orders those that meet. So the
    first images are one of each class, and among the first k, a class has its share of k to within as many images as
    there are classes. Whoever takes the first images of a split (to calibrate, to compare, to try) sees all of it.
    """
    counts = drawing.per_class(classes)
    by_class = np.argsort(drawing.labels, kind="stable")
    labels = drawing.labels[by_class]
    starts = np.concatenate([[0], np.cumsum(counts)])[:-1]
    way = (np.arange(len(drawing)) - starts[labels]) / counts[labels]
    chance = np.random.default_rng([seed, len(drawing)]).random(len(drawing))
    order = by_class[np.lexsort((chance, way))]
    return replace(drawing, indices=drawing.indices[order], labels=drawing.labels[order])


def _warnings(splits: Mapping[str, Drawing], classes: tuple[str, ...]) -> list[str]:
    """Classes that a given validation or test split has no image of."""
    warnings = []
    for name in DRAWN:
        absent = [classes[label] for label in np.flatnonzero(splits[name].per_class(len(classes)) == 0)]
        if absent:
            warnings.append(f"the {name} split has no image of {', '.join(absent)}")
    return warnings


def shared_groups(raw: RawDataset, splits: Mapping[str, Drawing]) -> list[str]:
    """Groups that the data set itself has both in train and in a split that it comes with."""
    if "train" not in raw.groups:
        return []
    trained = {raw.groups["train"][index] for name in ("train", "calibration") for index in splits[name].indices}
    warnings = []
    for name in DRAWN:
        source = splits[name].source
        shared = trained & {raw.groups[source][index] for index in splits[name].indices} if source in raw.groups else ()
        if shared:
            first = sorted(shared)[0]
            warnings.append(
                f"{len(shared)} groups of the {name} split, such as {first!r}, are in train too: its score is flattered"
            )
    return warnings
