"""A process that times one file of a run, call by call as its parent asks.

`python -m edgeopt.comparison.timed_file JOB.json`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgeopt.arrays import Json
from edgeopt.json_values import from_text
from edgeopt.workers.process import Events, requests_of_parent, work

_SEED = 17


@dataclass(frozen=True)
class FileTimingJob:
    """What a worker is to do: to time `file` in the runtime of `exporter` on request, with batches of generated images.

    `holds` is the file's input's, `preprocessing` the card's.
    """

    module: ClassVar[str] = "edgeopt.comparison.timed_file"

    file: Path
    exporter: str
    plugin_files: tuple[Path, ...]
    holds: str
    preprocessing: Mapping[str, Json]
    threads: int
    batch_size: int
    warmup: int


def main(events: Events) -> None:
    """Times the file that the command line's job names, see `edgeopt.measure.latency`."""
    job = from_text(FileTimingJob, Path(sys.argv[1]).read_text())
    import numpy as np  # heavy: not for whoever writes the job

    from edgeopt.measure.answers import feeder
    from edgeopt.measure.latency import serve
    from edgeopt.plugins.declarations import ExporterPlugin
    from edgeopt.plugins.registry import load_registry
    from edgeopt.preprocessing import Preprocessing

    preprocessing = Preprocessing.from_json(job.preprocessing)
    side = preprocessing.image_size
    shape = (job.batch_size, side, side, 3)
    pixels = np.random.default_rng(_SEED).integers(0, 256, shape, dtype=np.uint8)
    serve(
        exporter=load_registry(job.plugin_files).get(ExporterPlugin, job.exporter),
        file=job.file,
        batch=feeder(job.holds, preprocessing)(pixels),
        threads=job.threads,
        warmup=job.warmup,
        requests=requests_of_parent(),
        answer=events.send,
    )


if __name__ == "__main__":
    sys.exit(work(main))
