"""A process that asks how often a file is right for labelled images: `python -m edgeopt.bench.labelled JOB.json`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edgeopt.bench.labelled_file import LabelledFile
from edgeopt.conversion.labelled import Labelling, labelling
from edgeopt.errors import DataError
from edgeopt.json_values import from_text
from edgeopt.options import DatasetOptions
from edgeopt.plugins.blame import BlamedLoad, BlamedPredictor, blamed
from edgeopt.plugins.handed import handed
from edgeopt.preprocessing import Preprocessing
from edgeopt.types import Split
from edgeopt.workers.process import Events, die_with_parent, leave, work

if TYPE_CHECKING:
    from edgeopt.arrays import Labels, Pixels


@dataclass(frozen=True)
class LabelledJob:
    """What a worker is to do: to let the `LabelledFile` that `file` holds answer for the first `images` test images."""

    module: ClassVar[str] = "edgeopt.bench.labelled"

    file: Path
    images: int
    threads: int


@dataclass(frozen=True, eq=False)
class _First:
    """The first `count` images of a split, with the file's own outputs for labels."""

    split: Split
    count: int
    known: Labelling

    @property
    def labels(self) -> Labels:
        return self.known.labels(self.split.labels[: self.count])

    def __len__(self) -> int:
        return self.count

    def pixels(self, indices: Sequence[int] | slice) -> Pixels:
        return self.split.pixels(indices)


def main(events: Events) -> None:
    """Answers with the share of right answers, and the number of images."""
    die_with_parent()
    job = from_text(LabelledJob, Path(sys.argv[1]).read_text())
    from edgeopt.data.cache import load_data, opener  # numpy, as all below: the parent imports the job alone
    from edgeopt.data.prepare import prepare_found
    from edgeopt.measure.answers import file_outputs
    from edgeopt.tasks import TASKS

    file = handed(LabelledFile, job.file)
    plugin, options = file.dataset.plugin, _as_taken(file.dataset.options, file.fed.preprocessing)
    with tempfile.TemporaryDirectory(prefix="edgeopt-labelled-") as folder:
        with blamed(plugin, "find"):
            found = plugin.find(options) if plugin.find else None
        load = BlamedLoad(plugin.name, plugin.load, options)
        prepare_found(found, load, options, Path(folder), events)
        data = load_data(Path(folder), options, opener(Path(folder), load))
        known = labelling(file.classes, data.training.classes)
        if known.why_not:
            raise DataError(f"nobody knows which answer is right: {known.why_not}")
        shown = _First(data.test, min(job.images, len(data.test)), known)
        with file.fed.exporter.opened(file.fed.path, job.threads) as predictor:
            answering = BlamedPredictor(file.fed.exporter, predictor)
            outputs = file_outputs(answering, shown, file.fed.feed, events, "answers")
    score = TASKS["classification"].score(outputs, shown.labels)
    events.send({"event": "right", "share": score.value, "images": score.count})


def _as_taken(options: DatasetOptions, preprocessing: Preprocessing) -> DatasetOptions:
    """The data set with images as the file takes them, whatever its own options say."""
    names = ("image_size", "fit", "interpolation", "channels", "mean", "std", "background")
    resize = preprocessing.resize if preprocessing.fit == "crop" else None
    if isinstance(resize, int) and not isinstance(preprocessing.image_size, int):
        resize = (resize, resize)  # alone, a number would be the shorter side of such images
    return options.model_copy(update={"resize": resize, **{name: getattr(preprocessing, name) for name in names}})


if __name__ == "__main__":
    leave(work(main))
