"""A process that makes the program of a run for images of another size: `python -m edgeopt.bench.sweep.program
JOB.json`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from edgeopt.arrays import OUTPUTS, ImageSize, save_outputs, sides_of, size_in_words
from edgeopt.bench.sweep.images import PIXELS
from edgeopt.errors import ExportError, Problem
from edgeopt.json_values import from_text
from edgeopt.workers.process import Events, die_with_parent, leave, work

COMPARED = 64
"""Test images for which a program answers at least, so that the files made of it can be held to it."""


@dataclass(frozen=True)
class ProgramJob:
    """What a worker is to do: to write to `folder` the program in the folder `program` for images of `size` px, and
    what it answers for the first `compared` of the test images in `images`. The rest is as `KeptProgram` has it.
    """

    module: ClassVar[str] = "edgeopt.bench.sweep.program"

    program: Path
    origin: Path
    is_fixed: bool
    images: Path
    folder: Path
    size: ImageSize
    compared: int


def main(events: Events) -> None:
    """Does the job that the command line names."""
    job = from_text(ProgramJob, Path(sys.argv[1]).read_text())
    die_with_parent()
    import numpy as np  # heavy, as is torch, which what follows imports

    from edgeopt.data.cache import CachedSplit
    from edgeopt.networks.capture import program_outputs
    from edgeopt.networks.saved import load_state, save_state
    from edgeopt.networks.sizes import at_image_size

    state = load_state(job.program)
    if job.size != state.preprocessing.image_size:
        try:
            task = state.task.at_size(*sides_of(job.size))
        except ValueError as error:
            hint = "leave this size out, or run the recipe with another dataset.image_size"
            message = f"there is no file of the task {state.task.name} for {size_in_words(job.size)} px: {error}"
            raise ExportError(Problem(message, hint)) from error
        state = at_image_size(state, load_state(job.origin), job.size, is_fixed=job.is_fixed)
        state = replace(state, task=task)
    save_state(state, job.folder)
    images = np.load(job.images / PIXELS, mmap_mode="r")
    split = CachedSplit(range(min(job.compared, len(images))), job.images / PIXELS)  # no targets are needed to answer
    outputs = program_outputs(state, split, events, f"program at {size_in_words(job.size)} px")
    save_outputs(job.folder / OUTPUTS, outputs)


if __name__ == "__main__":
    leave(work(main))
