"""The images of a folder as a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.data.images import open_image
from edgeopt.data.walk import require_unchanged
from edgeopt.plugins import RawDataset
from edgeopt_images.many_labels import ManyLabels

if TYPE_CHECKING:
    from edgeopt.data.walk import FoundFile
    from edgeopt.plugins import Labels
    from edgeopt_images.layout import Layout


@dataclass(frozen=True, eq=False)
class _Files:
    """Images in files below `root`, decoded when they are asked for."""

    root: Path
    files: tuple[FoundFile, ...]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        found = self.files[index]
        file = self.root / found.name
        require_unchanged(file, found.size, found.changed)
        return open_image(file, str(file))

    def name_of(self, index: int) -> str:
        """The path of the file."""
        return str(self.root / self.files[index].name)


@dataclass(frozen=True, eq=False)
class FolderImages(_Files):
    """Images of one class each: int64 `labels` (n,)."""

    labels: Labels


@dataclass(frozen=True, eq=False)
class ManyLabelImages(ManyLabels, _Files):
    """Images of any number of labels each."""


def read_folder(layout: Layout) -> RawDataset:
    """The layout's images, decoded when they are asked for."""
    splits = {}
    for name, classes in layout.splits.items():
        labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(files) for files in classes])
        splits[name] = FolderImages(layout.root, tuple(file for files in classes for file in files), labels)
    return RawDataset(layout.classes, splits, warnings=layout.warnings)
