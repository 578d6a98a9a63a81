"""A process that times one file with one number of images in a call: `python -m edgeopt.bench.timed_file JOB.json`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgeopt.bench.opened import BenchFile
from edgeopt.json_values import from_text
from edgeopt.plugins.handed import handed
from edgeopt.workers.process import Events, requests_of_parent, work


@dataclass(frozen=True)
class TimingJob:
    """What a worker is to do: to time the `BenchFile` that `file` holds, on request, see `edgeopt.measure.latency`."""

    module: ClassVar[str] = "edgeopt.bench.timed_file"

    file: Path
    batch_size: int
    threads: int
    warmup: int


def main(events: Events) -> None:
    """Times the file that the command line's job names."""
    job = from_text(TimingJob, Path(sys.argv[1]).read_text())
    import numpy as np  # heavy: the parent imports this module for the job alone

    from edgeopt.data.images import open_image
    from edgeopt.measure.latency import serve

    file = handed(BenchFile, job.file)
    pixels = file.preprocessing.pixels(open_image(file.image, str(file.image)))
    serve(
        exporter=file.exporter,
        file=file.path,
        batch=file.feed(np.stack([pixels] * job.batch_size)),
        threads=job.threads,
        warmup=job.warmup,
        requests=requests_of_parent(),
        answer=events.send,
    )


if __name__ == "__main__":
    sys.exit(work(main))
