"""A process that times the whole way of an image through one file: `python -m edgeopt.bench.whole_way JOB.json`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgeopt.bench.table import PipelineTimes
from edgeopt.json_values import from_text, to_values
from edgeopt.measure.fed_file import FedFile
from edgeopt.measure.whole_way import whole_way
from edgeopt.plugins.handed import handed
from edgeopt.workers.process import Events, die_with_parent, work


@dataclass(frozen=True)
class WholeWayJob:
    """What a worker is to do: to take an image the whole way through the `FedFile` that `file` holds, `runs` times
    after `warmup` times that do not count.
    """

    module: ClassVar[str] = "edgeopt.bench.whole_way"

    file: Path
    threads: int
    warmup: int
    runs: int


def main(events: Events) -> None:
    """Times the parts, and answers with their medians."""
    die_with_parent()
    job = from_text(WholeWayJob, Path(sys.argv[1]).read_text())
    opened = handed(FedFile, job.file)
    assert opened.image  # a benchmark always has one
    preprocessing = opened.preprocessing.to_json()
    with opened.exporter.opened(opened.path, job.threads) as predictor:
        encoded, name = opened.image.read_bytes(), str(opened.image)
        times = whole_way(encoded, name, preprocessing, opened.feed, predictor, job.warmup, job.runs)
    whole = PipelineTimes.of(times)
    events.send({"event": "whole", "times": to_values(whole)})


if __name__ == "__main__":
    sys.exit(work(main))
