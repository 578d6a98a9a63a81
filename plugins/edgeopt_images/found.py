"""What one look at a folder of images found. Light: `edgeopt check` asks it, and no image is read."""

from __future__ import annotations

from dataclasses import dataclass

from edgeopt.plugins import DataSurvey, RawDataset
from edgeopt_images.layout import Layout, find_layout
from edgeopt_images.options import ImageFolderOptions


@dataclass(frozen=True)
class FoundFolder:
    """The images of a folder by split and class."""

    layout: Layout

    def fingerprint(self) -> str:
        """Names, sizes and times of the images."""
        return self.layout.fingerprint()

    def survey(self) -> DataSurvey:
        """The classes and counts, by the names of the files."""
        return self.layout.survey()

    def load(self) -> RawDataset:
        """The images, decoded when they are asked for."""
        from edgeopt_images.folder import read_folder  # numpy and Pillow are heavy

        return read_folder(self.layout)


def find_folder(options: ImageFolderOptions) -> FoundFolder:
    """Looks at a folder; raises `DataError` when it does not hold what it must."""
    return FoundFolder(find_layout(options.path, options.splits, skip_broken=options.on_error == "skip"))
