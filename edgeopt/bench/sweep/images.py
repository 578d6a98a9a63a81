"""A process that brings the test images of a run to a size: `python -m edgeopt.bench.sweep.images JOB.json`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from edgeopt.arrays import ImageSize, sides_of, size_in_words
from edgeopt.errors import DataChangedError
from edgeopt.json_values import from_text
from edgeopt.options import without_augmentation
from edgeopt.plugins.blame import BlamedLoad
from edgeopt.plugins.declarations import DatasetPlugin
from edgeopt.plugins.handed import handed
from edgeopt.plugins.use import Use
from edgeopt.types import targets_of
from edgeopt.workers.process import Events, die_with_parent, leave, work

if TYPE_CHECKING:
    from edgeopt.progress import Progress
    from edgeopt.tasks.base import Task
    from edgeopt.types import Split

PIXELS, TARGETS = "pixels.npy", "targets.npz"
_AT_ONCE = 64  # images
_COMPARED = 16  # images, by which a data set is known again


@dataclass(frozen=True)
class TestImages:
    """Where a run keeps its test images, and the data set that opens them anew."""

    data: Path
    dataset: Use[DatasetPlugin]


@dataclass(frozen=True)
class ImagesJob:
    """What a worker is to do: to write pixels and targets of the `TestImages` that `images`, a file, holds to `folder`,
    brought to `size` px.
    """

    module: ClassVar[str] = "edgeopt.bench.sweep.images"

    images: Path
    folder: Path
    size: ImageSize


def main(events: Events) -> None:
    """Does the job that the command line names."""
    job = from_text(ImagesJob, Path(sys.argv[1]).read_text())
    die_with_parent()
    from edgeopt.data.cache import load_task  # numpy

    images = handed(TestImages, job.images)
    _write(_split(images, job.size), load_task(images.data), job.folder, size_in_words(job.size), events)


def _split(images: TestImages, size: ImageSize) -> Split:
    from edgeopt.data.cache import load_test, load_test_at_size, opener  # numpy
    from edgeopt.data.prepare import preprocessing_of  # as above

    plugin, options = images.dataset.plugin, without_augmentation(images.dataset.options)
    as_it_was = BlamedLoad(plugin.name, plugin.load, options)
    if size == options.image_size:
        return load_test(images.data, opener(images.data, as_it_was))
    _require_same_images(images.data, as_it_was)
    frame = preprocessing_of(options).frame_at(size) if options.fit == "crop" else None
    scaled = {"image_size": size, "resize": frame if isinstance(size, int) or frame is None else sides_of(frame)}
    return load_test_at_size(images.data, size, BlamedLoad(plugin.name, plugin.load, options.model_copy(update=scaled)))


def _require_same_images(data: Path, load: BlamedLoad) -> None:
    """Raises `DataChangedError` where the first test images are no longer those of the run."""
    from edgeopt.data.cache import KnownImages, digests_of_test

    count = _COMPARED
    known = KnownImages.read(data).digests[:count]
    if list(known) != digests_of_test(data, load, count):
        raise DataChangedError(
            "the test images are no longer those that the run was tested on", hint="run its recipe again"
        )


def read_targets(file: Path, task: Task) -> Any:
    """The targets of test images in a file of that name."""
    import numpy as np

    with np.load(file, allow_pickle=False) as arrays:
        return task.restored(dict(arrays))


def write_targets(file: Path, task: Task, targets: Any) -> None:
    """Writes targets for `read_targets`."""
    import numpy as np

    arrays: dict[str, Any] = dict(task.stored(targets))
    np.savez(file, **arrays)


def _write(split: Split, task: Task, folder: Path, size: str, progress: Progress) -> None:
    import numpy as np

    shape = (len(split), *split.pixels(range(1)).shape[1:])
    pixels = np.lib.format.open_memmap(folder / PIXELS, mode="w+", dtype=np.uint8, shape=shape)
    with progress.bar(f"test images at {size} px", len(split)) as bar:
        for start in range(0, len(split), _AT_ONCE):
            some = range(start, min(start + _AT_ONCE, len(split)))
            pixels[some.start : some.stop] = split.pixels(some)
            bar.advance(len(some))
    pixels.flush()
    write_targets(folder / TARGETS, task, targets_of(split))


if __name__ == "__main__":
    leave(work(main))
