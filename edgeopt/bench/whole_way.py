"""A process that times the whole way of an image through one file: `python -m edgeopt.bench.whole_way JOB.json`."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

from edgeopt.bench.table import PipelineTimes
from edgeopt.json_values import from_text, to_values
from edgeopt.measure.fed_file import FedFile
from edgeopt.plugins.handed import handed
from edgeopt.plugins.predictor import timed_call
from edgeopt.workers.process import Events, die_with_parent, work

T = TypeVar("T")


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
    import numpy as np  # heavy: the parent imports this module for the job alone

    from edgeopt.data.images import open_image
    from edgeopt.tasks import TASKS

    opened = handed(FedFile, job.file)
    preprocessing, feed, task = opened.preprocessing, opened.feed, TASKS["classification"]
    assert opened.image  # a benchmark always has one
    encoded, name = opened.image.read_bytes(), str(opened.image)
    with opened.exporter.opened(opened.path, job.threads) as predictor:

        def once() -> tuple[float, float, float, float]:
            image, decode = _timed(lambda: open_image(encoded, name))
            batch, preprocess = _timed(lambda: feed(preprocessing.pixels(image)[np.newaxis]))
            logits, file = timed_call(predictor, lambda: predictor.predict(batch))
            _, answer = _timed(lambda: task.decode(logits))
            return decode, preprocess, file, answer

        for _ in range(job.warmup):
            once()
        times = [once() for _ in range(job.runs)]
    decode, preprocess, call, answer = (statistics.median(part) for part in zip(*times, strict=True))
    total = statistics.median(map(sum, times))
    share = statistics.median(file / (decoded + resized + file + told) for decoded, resized, file, told in times)
    whole = PipelineTimes(decode, preprocess, call, answer, total, share, job.runs)
    events.send({"event": "whole", "times": to_values(whole)})


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    """What a call returns, and how long it took, ms."""
    start = time.perf_counter()
    result = call()
    return result, (time.perf_counter() - start) * 1e3


if __name__ == "__main__":
    sys.exit(work(main))
