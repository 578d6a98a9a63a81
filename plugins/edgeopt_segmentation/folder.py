"""Images and masks in files, as they are read."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from edgeopt.data.images import UNREADABLE, open_image
from edgeopt.plugins import DataError, Problem, usable_cores
from edgeopt_segmentation.parts.shares import IGNORED

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NAMED = 10  # of what is wrong, in an error
_ORIENTATION, _TURNED = 274, range(5, 9)  # the tag of EXIF, and its values that swap the sides


@dataclass(frozen=True)
class MaskedImages:
    """Images and masks in files, decoded when they are asked for."""

    files: tuple[tuple[Path, Path], ...]
    values: tuple[int, ...]
    ignored: int | None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        return open_image(self.files[index][0], self.name_of(index))

    def name_of(self, index: int) -> str:
        """The path of the image."""
        return str(self.files[index][0])

    def target(self, index: int) -> NDArray[np.uint8]:
        """The mask of an image, uint8 (height, width): classes by their places, 255 where it is ignored.

        Raises `DataError`, naming the file, for one of another size than its image, or with a value that no class has.
        """
        image, mask = self.files[index]
        with Image.open(image) as opened:
            size = opened.size[::-1] if opened.getexif().get(_ORIENTATION) in _TURNED else opened.size
        given = _values(open_image(mask, str(mask)), mask)
        if given.shape != size[::-1]:
            height, width = given.shape
            raise DataError(
                Problem(
                    f"{mask}: is {width} × {height} px, and its image {size[0]} × {size[1]}", "mend it, or leave it out"
                )
            )
        table = self._table
        strange = np.unique(given[table[given] < 0])
        if len(strange):
            raise DataError(
                Problem(
                    f"{mask}: has the value {strange[0]}, and classes have {', '.join(map(str, self.values))}",
                    "name it in values, or as ignored",
                )
            )
        return table[given].astype(np.uint8)

    @cached_property
    def _table(self) -> NDArray[np.int16]:
        """The class of each value of a mask, -1 where none has it."""
        table = np.full(256, -1, np.int16)
        for place, value in enumerate(self.values):
            table[value] = place
        if self.ignored is not None:
            table[self.ignored] = IGNORED
        return table


def _values(image: Image.Image, name: Path) -> NDArray[np.uint8]:
    """The values of a mask: those of a palette's entries, or grey levels."""
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    values = np.asarray(image)
    if image.mode not in ("L", "P", "I", "I;16") or values.max(initial=0) > 255 or values.min(initial=0) < 0:
        raise DataError(
            Problem(f"{name}: is no mask of one byte a place, but {image.mode}", "save it grey or with a palette")
        )
    return values.astype(np.uint8)


def require_masks(splits: Mapping[str, MaskedImages]) -> None:
    """Reads every mask, and raises `DataError` with what is wrong with all of them."""

    def look(job: tuple[MaskedImages, int]) -> list[Problem]:
        images, index = job
        try:
            images.target(index)
        except DataError as error:
            return list(error.problems)
        except UNREADABLE as error:
            return [Problem(f"{images.name_of(index)}: cannot be read: {error}")]
        return []

    jobs = [(images, index) for images in splits.values() for index in range(len(images))]
    with ThreadPoolExecutor(usable_cores()) as pool:
        found = [problem for problems in pool.map(look, jobs) for problem in problems]
    if found:
        more = [Problem(f"and {len(found) - _NAMED} more")] if len(found) > _NAMED else []
        raise DataError(*found[:_NAMED], *more)
