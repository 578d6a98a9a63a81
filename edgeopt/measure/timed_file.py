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
from edgeopt.measure.whole_way import whole_way
from edgeopt.plugins.handed import handed
from edgeopt.plugins.predictor import Predictor
from edgeopt.workers.process import Events, leave, requests_of_parent, work


@dataclass(frozen=True)
class WholeWayRuns:
    """How often an image is taken the whole way: `runs` times after `warmup` times that do not count."""

    warmup: int
    runs: int


@dataclass(frozen=True)
class FileTimingJob:
    """What a worker is to do: to time the `FedFile` that `file` holds, on request, see `edgeopt.measure.latency`.

    With `whole`, it takes the image of the file the whole way at the end, and answers with the times of
    `edgeopt.measure.whole_way.PARTS`, ms. One process does both because opening a runtime takes longer than either.
    """

    module: ClassVar[str] = "edgeopt.measure.timed_file"

    file: Path
    batch_size: int
    threads: int
    warmup: int
    whole: WholeWayRuns | None = None


def main(events: Events) -> None:
    """Times the file that the command line's job names."""
    job = from_text(FileTimingJob, Path(sys.argv[1]).read_text())
    file = handed(FedFile, job.file)

    def take_the_whole_way(predictor: Predictor) -> None:
        if job.whole is None:
            return
        assert file.image  # whoever asks for it has one
        encoded, preprocessing = file.image.read_bytes(), file.preprocessing.to_json()
        warmup, runs = job.whole.warmup, job.whole.runs
        answers = file.task.decode
        times = whole_way(encoded, str(file.image), preprocessing, file.feed, predictor, answers, warmup, runs)
        events.send({"event": "whole", "times_ms": times})

    serve(
        exporter=file.exporter,
        file=file.path,
        batch=file.batch(job.batch_size),
        threads=job.threads,
        warmup=job.warmup,
        requests=requests_of_parent(),
        answer=events.send,
        afterwards=take_the_whole_way,
    )


if __name__ == "__main__":
    leave(work(main))
