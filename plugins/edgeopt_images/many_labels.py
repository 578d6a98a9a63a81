"""Any number of labels an image, as data sets keep them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeopt.plugins import Labels


@dataclass(frozen=True, eq=False)
class ManyLabels:
    """Any number of labels for each image: those of image i stand in `given`, int64, before its place in `ends`."""

    given: Labels
    ends: Labels
    classes: int

    def target(self, index: int) -> tuple[int, ...]:
        """0 or 1 for each class."""
        start = self.ends[index - 1] if index else 0
        has = set(self.given[start : self.ends[index]].tolist())
        return tuple(int(place in has) for place in range(self.classes))
