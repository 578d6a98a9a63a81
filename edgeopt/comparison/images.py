"""The test images of a run, as far as the store beside it still has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.comparison.runs import ReadRun
from edgeopt.data.cache import split_file
from edgeopt.pipeline.record import read_record
from edgeopt.pipeline.runner import store_of

if TYPE_CHECKING:
    from edgeopt.arrays import Pixels


def stored_images(run: ReadRun, places: Iterable[int]) -> Mapping[int, Pixels]:
    """Images of the test split by their places in it, uint8 (height, width, 3); none where the store has no pixels."""
    record = read_record(run.folder)
    key = record.stages.get("data") if record else None
    found = store_of(run.folder.parent).find(key) if key else None
    if found is None or run.answers is None or not split_file(found.folder, "test", "pixels").is_file():
        return {}
    pixels = np.load(split_file(found.folder, "test", "pixels"), mmap_mode="r")
    if len(pixels) != len(run.answers.images):
        return {}
    return {place: np.asarray(pixels[place]) for place in places}
