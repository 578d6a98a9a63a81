"""What a report says of masks: IoU of each class, and the images that were answered worst."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.plugins import Section, SectionImage, SectionTable
from edgeopt_segmentation.parts.shares import IGNORED, shares_of
from edgeopt_segmentation.places import overlay_png, told

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt_segmentation.scores import Overlaps

_SHOWN = 12  # images, the worst first
_COLUMNS = ("class", "IoU", "95 % interval", "share of the places")


def section_of(
    masks: NDArray[Any], truth: NDArray[Any], found: Overlaps, classes: Sequence[str], right_from: float
) -> Section:
    """The section on what one file answered: masks, integers (n, height, width), beside the truth."""
    intervals, judged = found.intervals().by_class, max(1, int(found.truth.sum()))
    rows = tuple(
        (name, _percent(share), _between(interval), _percent(int(count) / judged))
        for name, share, interval, count in zip(
            classes, found.by_class, intervals, found.truth.sum(axis=0), strict=True
        )
    )
    by_image = found.by_image
    worst = np.argsort(by_image, kind="stable")[:_SHOWN]
    images = tuple(
        SectionImage(
            int(index),
            told(shares_of(truth[index], IGNORED), classes),
            f"{told(shares_of(masks[index], IGNORED), classes)}; mean IoU {_percent(by_image[index])}",
            bool(by_image[index] >= right_from),
            overlay_png=overlay_png(masks[index], IGNORED),
        )
        for index in worst
    )
    text = ("The images with the smallest mean IoU of their classes, with the mask that was given over them.",)
    return Section("Masks", text, (SectionTable(_COLUMNS, rows, "Intersection over union, by class"),), images=images)


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f} %"


def _between(interval: tuple[float, float]) -> str:
    return "–" if math.isnan(interval[0]) else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"
