"""Boxes and detections: the values that readers, decoding and scores speak of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from edgeopt_detection.parts.box_decoder import overlaps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Corners: TypeAlias = NDArray[np.float32]
    Indices: TypeAlias = NDArray[np.int64]

__all__ = ["Boxes", "Detections", "overlaps"]


@dataclass(frozen=True, eq=False)
class Boxes:
    """The boxes of one image, in px of the image as it was: float32 `corners` (n, 4) as x1, y1, x2, y2, and int64
    `classes` (n,).

    `crowd`, bool (n,), marks regions that hold many objects of a class: answers in them are neither right nor wrong,
    and nothing is learnt from them.
    """

    corners: Corners
    classes: Indices
    crowd: NDArray[np.bool_]

    def __post_init__(self) -> None:
        count = len(self.corners)
        _require(self.corners, np.float32, (count, 4), "corners")
        _require(self.classes, np.int64, (count,), "classes")
        _require(self.crowd, np.bool_, (count,), "crowd")

    def __len__(self) -> int:
        return len(self.classes)

    @classmethod
    def of(cls, corners: object, classes: object, crowd: object = None) -> Boxes:
        """Boxes of anything that NumPy makes arrays of; none is a crowd where nothing is said."""
        marked = np.zeros(len(classes), dtype=np.bool_) if crowd is None else crowd  # type: ignore[arg-type]
        return cls(
            np.asarray(corners, dtype=np.float32).reshape(-1, 4),
            np.asarray(classes, dtype=np.int64).reshape(-1),
            np.asarray(marked, dtype=np.bool_).reshape(-1),
        )


@dataclass(frozen=True, eq=False)
class Detections:
    """The answer for one image: float32 `corners` (n, 4) as x1, y1, x2, y2 in px, int64 `classes` (n,) and float32
    `scores` (n,), the best first.
    """

    corners: Corners
    classes: Indices
    scores: NDArray[np.float32]

    def __post_init__(self) -> None:
        count = len(self.corners)
        _require(self.corners, np.float32, (count, 4), "corners")
        _require(self.classes, np.int64, (count,), "classes")
        _require(self.scores, np.float32, (count,), "scores")

    def __len__(self) -> int:
        return len(self.classes)


def _require(array: NDArray[np.generic], dtype: type[np.generic], shape: tuple[int, ...], name: str) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{name} are {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}")
