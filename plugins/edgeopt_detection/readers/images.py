"""Images with boxes, as readers give them for a split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.data.images import open_image
from edgeopt_detection.boxes import Boxes

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class FlatBoxes:
    """The boxes of many images in a row: float32 `corners` (n, 4), int64 `classes` and bool `crowd` (n,). Those of
    image i stand from `starts`[i] to `starts`[i + 1]; int64 (images + 1,).
    """

    corners: NDArray[np.float32]
    classes: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    starts: NDArray[np.int64]

    @classmethod
    def of_none(cls, images: int) -> FlatBoxes:
        """Images without boxes."""
        none = Boxes.of([], [])
        return cls(none.corners, none.classes, none.crowd, np.zeros(images + 1, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, image: int) -> Boxes:
        part = slice(int(self.starts[image]), int(self.starts[image + 1]))
        return Boxes(self.corners[part], self.classes[part], self.crowd[part])

    @property
    def empty(self) -> int:
        """How many images have no box."""
        return int(np.count_nonzero(np.diff(self.starts) == 0))


@dataclass(frozen=True, eq=False)
class FileBoxImages:
    """Images in files, decoded when asked for, with their boxes in px of the image as it stands in its file."""

    files: tuple[Path, ...]
    boxes: FlatBoxes

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        return open_image(self.files[index], self.name_of(index))

    def target(self, index: int) -> Boxes:
        """The boxes of image `index`."""
        return self.boxes[index]

    def name_of(self, index: int) -> str:
        """The path of the file."""
        return str(self.files[index])


@dataclass(frozen=True, eq=False)
class ArrayBoxImages:
    """Images in memory, uint8 (n, height, width, 3), with their boxes."""

    images: NDArray[np.uint8]
    boxes: FlatBoxes

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        return self.images[index]

    def target(self, index: int) -> Boxes:
        """The boxes of image `index`."""
        return self.boxes[index]


def empty_images(count: int, images: int) -> list[str]:
    """What to say of images without boxes, which are kept."""
    return [f"{count} of {images} images have no boxes"] if count else []
