"""Latency and memory of one file, in a process that does nothing else.

The parent keeps one such process for each file and lets them work in turns, so that a drift of the machine meets all
files alike. A process that waits for its turn does nothing: runtimes keep their threads spinning for a while after a
call (ONNX Runtime for 40 ms), and a turn would be over before those of the file before it have left the processor.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.arrays import Json
from edgeopt.measure.calls import Turn, answer_turns
from edgeopt.option_values import Protocol
from edgeopt.options import MeasureSettings
from edgeopt.plugins.blame import blamed
from edgeopt.plugins.declarations import ExporterPlugin
from edgeopt.plugins.predictor import Predictor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeopt.arrays import Pixels


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Milliseconds of a call, over `runs` calls after `warmup` calls that do not count.

    `turns` holds the p50 of each turn's calls. Where they are far apart, the machine changed its speed. The other files
    of a run had the same turn right before or after. `load` is what opening the file takes, with its runtime's code in
    memory already, and `first` the first call, while no other file loads. `images_per_s` counts the images of all
    calls over the time of all calls. Figures that a report of an earlier version does not have are None.

    Where nobody tells single calls, as some runners on phones do not, `turns` holds the mean of each turn's calls and
    `p50` the median of these; `p90`, `p99` and `std` are None.
    """

    p50: float
    p90: float | None
    std: float | None
    threads: int
    warmup: int
    runs: int
    batch_size: int = 1
    rounds: int = 1
    turns: tuple[float, ...] = ()
    p99: float | None = None
    load: float | None = None
    first: float | None = None
    images_per_s: float | None = None


@dataclass(frozen=True)
class Start:
    """What it takes until a file answers, ms: to open it, and to answer for the first time."""

    load_ms: float
    first_ms: float


PROTOCOLS: Mapping[Protocol, Turn] = {
    Protocol.CALLS: Turn(0),
    Protocol.SINGLE_STREAM: Turn(1024, 60.0),
}
"""What a file does at least, in all its turns together. Single stream is that of MLPerf Inference, whose figure is the
p90: https://github.com/mlcommons/inference_policies/blob/master/inference_rules.adoc
"""


def summarize(turns_ms: Sequence[Sequence[float]], settings: MeasureSettings, start: Start) -> Latency:
    """Figures from the times of the calls in each turn, ms; needs at least two calls in all."""
    times_ms = list(chain.from_iterable(turns_ms))
    hundredths = statistics.quantiles(times_ms, n=100, method="inclusive")
    return Latency(
        p50=statistics.median(times_ms),
        p90=hundredths[89],
        std=statistics.stdev(times_ms),
        threads=settings.threads,
        warmup=settings.warmup,
        runs=len(times_ms),
        batch_size=settings.batch_size,
        rounds=settings.rounds,
        turns=tuple(statistics.median(times) for times in turns_ms),
        p99=hundredths[98],
        load=start.load_ms,
        first=start.first_ms,
        images_per_s=1e3 * settings.batch_size * len(times_ms) / sum(times_ms),
    )


def summarize_means(
    means_ms: Sequence[float], calls: Sequence[int], settings: MeasureSettings, start: Start
) -> Latency:
    """Figures where nobody tells single calls: from the mean of each turn, ms, and how many calls it is of."""
    total_ms = sum(mean_ms * count for mean_ms, count in zip(means_ms, calls, strict=True))
    return Latency(
        p50=statistics.median(means_ms),
        p90=None,
        std=None,
        threads=settings.threads,
        warmup=settings.warmup,
        runs=sum(calls),
        batch_size=settings.batch_size,
        rounds=settings.rounds,
        turns=tuple(means_ms),
        load=start.load_ms,
        first=start.first_ms,
        images_per_s=1e3 * settings.batch_size * sum(calls) / total_ms,
    )


def turns(settings: MeasureSettings) -> list[Turn]:
    """The calls that count and the time that they take at least, dealt out over at most `settings.rounds` turns, as
    evenly as can be.
    """
    least = PROTOCOLS[settings.protocol]
    runs = max(settings.runs, least.calls)
    rounds = min(settings.rounds, runs)
    calls = [runs // rounds + (1 if turn < runs % rounds else 0) for turn in range(rounds)]
    return [Turn(each, least.seconds / rounds) for each in calls]


def serve(
    exporter: ExporterPlugin,
    file: Path,
    batch: NDArray[np.float32] | Pixels,
    threads: int,
    warmup: int,
    requests: Iterator[str],
    answer: Callable[[dict[str, Json]], None],
    afterwards: Callable[[Predictor], None] | None = None,
) -> None:
    """Times `file` on request, see `edgeopt.measure.calls.answer_turns`, of which `afterwards` is.

    `batch` is what the file's predictor takes: float32 (n, channels, height, width), normalized, or pixels.
    """

    @contextmanager
    def opened() -> Iterator[Predictor]:
        with exporter.opened(file, threads) as predictor, blamed(exporter, "predict"):
            yield predictor

    answer_turns(opened, batch, warmup, requests, answer, modules=exporter.runtime_modules, afterwards=afterwards)
