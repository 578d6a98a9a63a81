"""Encoded images in records of TensorFlow Datasets, whatever their targets are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeopt.data.images import open_image, unreadable
from edgeopt_images.tfds.records import Records, values_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class RecordImages:
    """Encoded images in `places` of some records; `window` says within how many their order is shuffled where they are
    not cached.
    """

    records: Records
    places: NDArray[np.int64]
    column: str
    window: int

    @property
    def file_of(self) -> NDArray[np.int64]:
        """In which file each image stands, int64 (n,)."""
        return self.records.file_of[self.places]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Any:
        name = self.name_of(index)
        try:
            (encoded,) = values_of(self.records.record(int(self.places[index])), self.column)
        except Exception as error:  # whatever is wrong with a record, it is about this image
            raise unreadable(name, error) from error
        return open_image(encoded, name)

    def name_of(self, index: int) -> str:
        """The file, and the place of the record in it."""
        return self.records.name_of(int(self.places[index]))
