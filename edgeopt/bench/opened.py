"""A file as the processes of a benchmark get it, with the image that they give it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.plugins.declarations import ExporterPlugin
from edgeopt.preprocessing import Preprocessing
from edgeopt.types import Card

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeopt.arrays import Pixels


@dataclass(frozen=True)
class BenchFile:
    """A finished file with its card, the exporter that opens it, and the image that it is given."""

    exporter: ExporterPlugin
    path: Path
    card: Card
    image: Path

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image becomes what the file takes."""
        return Preprocessing.from_json(self.card.preprocessing)

    @property
    def feed(self) -> Callable[[Pixels], NDArray[np.float32] | Pixels]:
        """What turns uint8 (n, height, width, 3) into the batch that the file takes."""
        from edgeopt.measure.answers import feeder  # numpy

        return feeder(self.card.input.holds if self.card.input else "values", self.preprocessing)
