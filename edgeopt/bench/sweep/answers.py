"""A process that lets a file answer for all test images: `python -m edgeopt.bench.sweep.answers JOB.json`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgeopt.arrays import OUTPUTS, load_outputs, of_images, size_in_words
from edgeopt.bench.sweep.images import PIXELS, TARGETS, read_targets
from edgeopt.bench.table import FileAnswers
from edgeopt.errors import ExportError
from edgeopt.json_values import from_text, to_text
from edgeopt.measure.fed_file import FedFile
from edgeopt.plugins.blame import BlamedPredictor
from edgeopt.plugins.handed import handed
from edgeopt.workers.process import Events, die_with_parent, leave, work


@dataclass(frozen=True)
class AnswersJob:
    """What a worker is to do: to feed the test images in `images` to the `FedFile` that `file` holds, and to write
    `FileAnswers` to `answer`. `program` is the folder of its program, with what that answered for the first of them.
    """

    module: ClassVar[str] = "edgeopt.bench.sweep.answers"

    file: Path
    images: Path
    program: Path
    answer: Path
    batch_size: int
    threads: int


def main(events: Events) -> None:
    """Does the job that the command line names."""
    job = from_text(AnswersJob, Path(sys.argv[1]).read_text())
    die_with_parent()
    import numpy as np  # heavy: the parent imports this module for the job alone

    from edgeopt.data.cache import CachedSplit
    from edgeopt.measure.answers import file_outputs, verify
    from edgeopt.networks.saved import load_outline

    file, outline = handed(FedFile, job.file), load_outline(job.program)
    task = outline.task
    targets = read_targets(job.images / TARGETS, task)
    split = CachedSplit(targets, job.images / PIXELS)
    label = f"answers at {size_in_words(file.preprocessing.image_size)} px"
    with file.exporter.opened(file.path, job.threads) as predictor:
        answering = BlamedPredictor(file.exporter, predictor)
        outputs = file_outputs(answering, split, file.feed, events, label, job.batch_size)
    if not all(np.isfinite(each).all() for each in outputs):
        raise ExportError("the file returns numbers that are not finite", hint="try another precision")
    program = load_outputs(job.program / OUTPUTS)
    count = min(len(program[0]), len(split))
    first, reference = (of_images(each, slice(count)) for each in (outputs, program))
    held = verify(task, first, reference, targets[:count], outline.output_names)
    scores = task.scores(outputs, targets)
    found = FileAnswers(
        images=len(split),
        test_accuracy=scores.accuracy.value if scores.accuracy else None,
        accuracy_interval=scores.accuracy.interval if scores.accuracy else None,
        scores=scores.all,
        agreement=held.agreement,
        compared=count,
        differing=held.differing,
        near_ties=held.near_ties,
    )
    job.answer.write_text(to_text(found))


if __name__ == "__main__":
    leave(work(main))
