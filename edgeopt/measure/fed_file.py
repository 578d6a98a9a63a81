"""A finished file with what it is fed, as the processes get it that time it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.plugins.declarations import ExporterPlugin
from edgeopt.preprocessing import Preprocessing
from edgeopt.tasks import Classification, Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeopt.arrays import Pixels

_SEED = 17


@dataclass(frozen=True)
class FedFile:
    """A file, the exporter that opens it, and the image that it is fed, None for noise: what a call takes does not
    depend on what an image shows.

    `holds` is what its input holds, "values" or "pixels", and `task` makes answers of its outputs.
    """

    exporter: ExporterPlugin
    path: Path
    holds: str
    preprocessing: Preprocessing
    image: Path | None = None
    task: Task = field(default_factory=Classification)

    @property
    def feed(self) -> Callable[[Pixels], NDArray[np.float32] | Pixels]:
        """What turns uint8 (n, height, width, channels) into the batch that the file takes."""
        from edgeopt.measure.answers import feeder  # numpy

        return feeder(self.holds, self.preprocessing)

    def batch(self, size: int) -> NDArray[np.float32] | Pixels:
        """`size` images as the file takes them."""
        import numpy as np  # heavy: not for whoever hands the file on

        if self.image is None:
            shape = (size, *self.preprocessing.shape)
            noise = np.random.default_rng(_SEED).integers(0, 256, shape, dtype=np.uint8)
            return self.feed(noise)
        from edgeopt.data.images import open_image

        pixels = self.preprocessing.pixels(open_image(self.image, str(self.image)))
        return self.feed(np.stack([pixels] * size))
