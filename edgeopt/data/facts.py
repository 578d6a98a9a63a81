"""What is known of prepared data, for the report: light, because the parent process reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeopt.arrays import Json


@dataclass(frozen=True)
class SplitFacts:
    """Counts of a split: all images, and those of each class in the order of the classes; the bytes of its pixels."""

    count: int
    per_class: Mapping[str, int]
    cached: bool
    bytes: int


@dataclass(frozen=True)
class PreparedData:
    """What became of a data set: splits and their counts, what was skipped or stands twice, and what the user should
    know.

    `groups` counts the groups of each split, where the data set names groups. `skipped` says of each image that could
    not be read why. `duplicates` counts, by split, images whose pixels are those of a training image.
    """

    classes: tuple[str, ...]
    preprocessing: Mapping[str, Json]
    fingerprint: str
    splits: Mapping[str, SplitFacts]
    groups: Mapping[str, int]
    bytes: int
    skipped: tuple[str, ...]
    duplicates: Mapping[str, int]
    warnings: tuple[str, ...]
