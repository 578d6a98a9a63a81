"""A process that times one finished file with one number of images in a call, as its parent asks.

`python -m edgeopt.measure.timed_file JOB.json`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgeopt.json_values import from_text
from edgeopt.measure.fed_file import FedFile
from edgeopt.measure.latency import serve
from edgeopt.plugins.handed import handed
from edgeopt.workers.process import Events, requests_of_parent, work


@dataclass(frozen=True)
class FileTimingJob:
    """What a worker is to do: to time the `FedFile` that `file` holds, on request, see `edgeopt.measure.latency`."""

    module: ClassVar[str] = "edgeopt.measure.timed_file"

    file: Path
    batch_size: int
    threads: int
    warmup: int


def main(events: Events) -> None:
    """Times the file that the command line's job names."""
    job = from_text(FileTimingJob, Path(sys.argv[1]).read_text())
    file = handed(FedFile, job.file)
    serve(
        exporter=file.exporter,
        file=file.path,
        batch=file.batch(job.batch_size),
        threads=job.threads,
        warmup=job.warmup,
        requests=requests_of_parent(),
        answer=events.send,
    )


if __name__ == "__main__":
    sys.exit(work(main))
