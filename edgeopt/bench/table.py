"""The shape of `bench.json`, version 1, and the same rows as CSV."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgeopt.arrays import ImageSize
from edgeopt.measure.latency import Latency
from edgeopt.measure.on_device import DeviceAnswers
from edgeopt.option_values import Protocol
from edgeopt.plugins.device import DeviceFacts
from edgeopt.plugins.energy_use import EnergyUse
from edgeopt.plugins.operator_times import OperatorTime
from edgeopt.report.schema import Environment
from edgeopt.tasks.scores import ACCURACY, Score
from edgeopt.types import Role

SCHEMA = 1


@dataclass(frozen=True)
class PipelineTimes:
    """What an app waits for with one image, the median of each part, ms.

    `decode` reads the JPEG or PNG, `preprocess` resizes, cuts and scales, `file` is the call of the file itself, and
    `answer` makes of what it returns what an app shows, such as a label with its confidence, or boxes. `total` is the
    median of all parts together, and `file_share` that of the file's share of it, 0 to 1.
    """

    decode: float
    preprocess: float
    file: float
    answer: float
    total: float
    file_share: float
    runs: int

    @classmethod
    def of(cls, times_ms: Sequence[Sequence[float]]) -> PipelineTimes:
        """The medians of what the parts took each time; see `edgeopt.measure.whole_way`."""
        decode, preprocess, file, answer = (statistics.median(part) for part in zip(*times_ms, strict=True))
        total = statistics.median(map(sum, times_ms))
        share = statistics.median(parts[2] / sum(parts) for parts in times_ms)
        return cls(decode, preprocess, file, answer, total, share, len(times_ms))


@dataclass(frozen=True)
class Minute:
    """One minute of calls without a pause: their median, ms, how the machine was at its end, where it tells, and what
    an image took, where energy is measured.
    """

    minute: float
    p50_ms: float
    calls: int
    temperature_c: float | None = None
    clock_mhz: float | None = None
    mj_per_image: float | None = None


@dataclass(frozen=True, kw_only=True)
class FileAnswers:
    """What a file that a sweep made answered for the `images` of the test split, each brought to its size.

    `scores` are the task's, the primary one first, and `test_accuracy` says again the one of that name. `agreement` is
    how far the first `compared` images are answered as by the program it was made from, 0 to 1; `differing` counts
    those that are not, and `near_ties` those of them that rounding alone can decide.
    """

    images: int
    test_accuracy: float | None = None
    accuracy_interval: tuple[float, float] | None = None
    agreement: float
    compared: int
    differing: int
    near_ties: int
    scores: tuple[Score, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MadeFile:
    """A file that a sweep made of the program behind a run's file, with the same weights and scales. `path` is below
    the benchmark's folder.
    """

    path: str
    sha256: str
    answers: FileAnswers


@dataclass(frozen=True, kw_only=True)
class BenchDevice:
    """A device on which files were to answer and be timed. Where that was not possible, `error` says why."""

    name: str
    kind: str
    facts: DeviceFacts | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class BenchRow:
    """A file with a number of images in a call and a number of threads, at an image size, px.

    Where that is not the file's own size, or it takes fewer images in a call, `made` is the file in its place, whose
    bytes and accuracy these are. `score` is the task's primary score, and `test_accuracy` the accuracy, where that is
    one of its scores. `energy` is that of an image, where it was measured.

    `faster` is how many times faster it is than the float file of the same export, which was timed turn by turn with
    it; `faster_is_noise` says that nobody can tell. Where there are no figures, `error` says why. `device` is where it
    ran, and then `answers` is what it answered there; empty for this machine where no device was named. `note` is what
    must be known of the figures, such as that there are no answers, or that times are means.
    """

    file: str
    export: str
    role: Role
    precision: str
    runtime: str
    image_size: ImageSize
    size_bytes: int | None
    batch_size: int
    threads: int
    test_accuracy: float | None = None
    accuracy_interval: tuple[float, float] | None = None
    latency_ms: Latency | None = None
    peak_memory_bytes: int | None = None
    faster: float | None = None
    faster_is_noise: bool = False
    error: str | None = None
    device: str = ""
    answers: DeviceAnswers | None = None
    note: str | None = None
    made: MadeFile | None = None
    energy: EnergyUse | None = None
    score: Score | None = None


@dataclass(frozen=True, kw_only=True)
class WholeRow:
    """The whole way of one image through a file with a number of threads, here or on a `device`; `error` says why it is
    not known.
    """

    file: str
    threads: int
    pipeline_ms: PipelineTimes | None = None
    error: str | None = None
    device: str = ""


@dataclass(frozen=True, kw_only=True)
class SustainedRow:
    """A file that was called for minutes without a pause, with a number of threads."""

    file: str
    threads: int
    minutes: tuple[Minute, ...] = ()
    error: str | None = None
    device: str = ""

    @property
    def slowdown(self) -> float | None:
        """The last minute's median over the first's."""
        return self.minutes[-1].p50_ms / self.minutes[0].p50_ms if self.minutes else None


@dataclass(frozen=True, kw_only=True)
class OperatorsRow:
    """What each operator of a file takes with one image in a call, in the order in which the runtime calls them.

    `float_file` is the float file of the same export, None for one itself and where it is not among the files. `error`
    says why what operators take is not known.
    """

    file: str
    threads: int
    operators: tuple[OperatorTime, ...] = ()
    float_file: str | None = None
    error: str | None = None

    @property
    def total_ms(self) -> float:
        """All operators together, without what the runtime does between them."""
        return sum(each.ms for each in self.operators)

    @property
    def by_layer(self) -> Mapping[str, float]:
        """Milliseconds of each layer, and of the other operators by their kinds, in the order of the first of them."""
        found: dict[str, float] = {}
        for each in self.operators:
            name = each.layer or each.kind
            found[name] = found.get(name, 0.0) + each.ms
        return found


@dataclass(frozen=True, kw_only=True)
class Bench:
    """All that was measured, on this machine or on the devices that were named. `image` says what the files were given,
    and `verdicts` what must not be overlooked: a device that answers otherwise than this machine. `key` tells what was
    asked for of which files, see `BenchRequest.key`, and `labelled` for which images files of no run were asked, whose
    accuracy nobody knew.
    """

    edgeopt: str
    runs: tuple[str, ...]
    environment: Environment
    protocol: Protocol
    image: str
    rows: tuple[BenchRow, ...]
    whole: tuple[WholeRow, ...] = ()
    sustained: tuple[SustainedRow, ...] = ()
    devices: tuple[BenchDevice, ...] = ()
    verdicts: tuple[str, ...] = ()
    operators: tuple[OperatorsRow, ...] = ()
    left_out: tuple[str, ...] = ()
    finished: str | None = None
    key: str = ""
    labelled: str = ""
    schema: int = SCHEMA

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files, each once."""
        return tuple(dict.fromkeys(row.file for row in self.rows))

    @property
    def score_called(self) -> str:
        """What the primary score of the files is called: "score" where they are for several tasks."""
        names = {row.score.kind.called for row in self.rows if row.score}
        return "score" if len(names) > 1 else next(iter(names), ACCURACY.called)

    @property
    def own_sizes(self) -> Mapping[str, ImageSize]:
        """The size of images, px, that each file has in its run: that of its first row."""
        return {row.file: row.image_size for row in reversed(self.rows)}

    @property
    def of_own_size(self) -> tuple[BenchRow, ...]:
        """The rows at the files' own sizes."""
        own = self.own_sizes
        return tuple(row for row in self.rows if row.image_size == own[row.file])

    @property
    def over_sizes(self) -> tuple[BenchRow, ...]:
        """The rows of a sweep of sizes, the files' own among them; none where other sizes were not asked for."""
        own = self.own_sizes
        batches = {row.batch_size for row in self.rows if row.image_size != own[row.file]}
        return tuple(row for row in self.rows if row.batch_size in batches)

    @property
    def answered(self) -> tuple[BenchRow, ...]:
        """A row for each file, size and device that have answers, which do not depend on how a file is timed."""
        first: dict[tuple[str, str, ImageSize], BenchRow] = {}
        for row in self.rows:
            if row.answers:
                first.setdefault((row.device, row.file, row.image_size), row)
        return tuple(first.values())

    def to_json(self) -> str:
        """The table as stable, indented JSON."""
        from pydantic_core import to_json  # only whoever writes a table needs it

        return to_json(self, indent=2).decode() + "\n"

    def to_csv(self) -> str:
        """The rows as CSV, a line each, with a header; what is not known is empty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(_cells(row) for row in self.rows)
        return text.getvalue()


_COLUMNS = (
    *("file", "export", "role", "precision", "runtime", "image_size", "size_bytes", "batch_size", "threads"),
    *("test_accuracy", "load_ms", "first_ms", "p50_ms", "p90_ms", "p99_ms", "std_ms", "images_per_s"),
    *("faster", "peak_memory_bytes", "runs", "error"),
    *("device", "images", "agreement", "differing", "max_logit_difference", "note"),
    *("made_file", "energy_mj", "energy_method", "score_name", "score"),
)


def _cells(row: BenchRow) -> Iterable[object]:
    latency, told = row.latency_ms, row.answers
    times = (
        (latency.load, latency.first, latency.p50, latency.p90, latency.p99, latency.std) if latency else (None,) * 6
    )
    cells: tuple[object, ...] = (
        *(row.file, row.export, row.role.value, row.precision, row.runtime, row.image_size, row.size_bytes),
        *(row.batch_size, row.threads, row.test_accuracy),
        *(None if time is None else f"{time:.6g}" for time in times),
        f"{latency.images_per_s:.6g}" if latency and latency.images_per_s else None,
        None if row.faster is None else f"{row.faster:.4g}",
        *(row.peak_memory_bytes, latency.runs if latency else None, row.error, row.device),
        *((told.images, told.agreement, told.differing, told.max_logit_difference) if told else _of_made(row)),
        row.note,
        row.made.path if row.made else None,
        *((f"{row.energy.mj_per_image:.4g}", row.energy.method) if row.energy else (None, None)),
        *((row.score.kind.name, row.score.value) if row.score else (None, None)),
    )
    return ("" if cell is None else cell for cell in cells)


def _of_made(row: BenchRow) -> tuple[object, ...]:
    """What is known of the answers of a file that was made; how it answers elsewhere is not."""
    told = row.made.answers if row.made else None
    return (told.images, told.agreement, None, None) if told else (None,) * 4
