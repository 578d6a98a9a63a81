"""A file and labelled images for it, as the process gets them that asks how often it is right."""

from __future__ import annotations

from dataclasses import dataclass

from edgeopt.measure.fed_file import FedFile
from edgeopt.plugins.declarations import DatasetPlugin
from edgeopt.plugins.use import Use


@dataclass(frozen=True)
class LabelledFile:
    """A file whose answers are known by `classes`, and the data set that it is to answer for."""

    fed: FedFile
    classes: tuple[str, ...]
    dataset: Use[DatasetPlugin]
