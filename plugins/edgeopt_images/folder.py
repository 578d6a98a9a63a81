"""The images of a folder as a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeopt.data.images import FileImages
from edgeopt.plugins import RawDataset
from edgeopt_images.layout import Layout


def read_folder(layout: Layout) -> RawDataset:
    """The layout's images, decoded when they are asked for."""
    splits = {}
    for name, classes in layout.splits.items():
        files = tuple(Path(layout.root, file.name) for files in classes for file in files)
        labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(files) for files in classes])
        splits[name] = FileImages(files, labels)
    return RawDataset(layout.classes, splits, warnings=layout.warnings)
