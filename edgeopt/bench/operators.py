"""A process that asks a file's runtime what each operator takes: `python -m edgeopt.bench.operators JOB.json`."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgeopt.json_values import from_text, to_values
from edgeopt.measure.fed_file import FedFile
from edgeopt.plugins.blame import blamed
from edgeopt.plugins.handed import handed
from edgeopt.plugins.operator_times import OperatorTimesRequest
from edgeopt.workers.process import Events, die_with_parent, leave, work


@dataclass(frozen=True)
class OperatorsJob:
    """What a worker is to do: to call the `FedFile` that `file` holds with one image, `runs` times after `warmup` times
    that do not count.
    """

    module: ClassVar[str] = "edgeopt.bench.operators"

    file: Path
    threads: int
    warmup: int
    runs: int


def main(events: Events) -> None:
    """Answers with the operators of the file that the command line's job names."""
    die_with_parent()
    job = from_text(OperatorsJob, Path(sys.argv[1]).read_text())
    file = handed(FedFile, job.file)
    assert file.exporter.operator_times is not None  # whoever made the job has looked
    with tempfile.TemporaryDirectory(prefix="edgeopt-operators-") as folder, blamed(file.exporter, "operator_times"):
        request = OperatorTimesRequest(file.path, file.batch(1), job.threads, job.warmup, job.runs, Path(folder))
        found = file.exporter.operator_times(request)
    events.send({"event": "operators", "operators": [to_values(each) for each in found]})


if __name__ == "__main__":
    leave(work(main))
