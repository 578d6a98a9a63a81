"""The shape of what `edgeopt compare --json` writes, version 1; `docs/compare.md` describes every field.

Readers ignore fields that they do not know, so fields may be added with a default and without a new version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from edgeopt.arrays import Json
from edgeopt.measure.latency import Latency
from edgeopt.report.schema import Interval
from edgeopt.tasks.scores import ACCURACY, Score, ScoreKind
from edgeopt.tasks.statistics import Paired
from edgeopt.types import Role

SCHEMA = 1


class Change(StrEnum):
    """What became of a figure. `UNCLEAR` is a difference that may be chance or noise."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "same"
    UNCLEAR = "unclear"


@dataclass(frozen=True, kw_only=True)
class Device:
    """The machine that a run measured on, as far as its report tells."""

    processor: str
    machine: str
    cores: int
    memory_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """One of the runs. `title` is what it is called beside the others: its folder's name where that tells it apart."""

    folder: str
    title: str
    recipe: str
    edgeopt: str
    dataset: str
    fingerprint: str
    test_images: int
    device: Device
    finished: str | None = None
    smoke: bool = False


@dataclass(frozen=True, kw_only=True)
class ChangedImage:
    """A test image that one of two files answered rightly, or better than the other; classes by name, other answers in
    words.

    `place` counts from 0 in the first run's test split, `name` is empty where the data set has none, and `label` where
    an image has no class. `grades` are how well both answered, where answers are graded.
    """

    place: int
    name: str
    label: str
    before: str
    after: str
    grades: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class ClassChange:
    """The images of one class: `before` and `after` are recalls, or mean grades of the images that have it; `p_value`
    is McNemar's, of grades the sign test's, raised by Holm's rule for the number of classes.
    """

    name: str
    images: int
    before: float
    after: float
    lost: int
    gained: int
    p_value: float


@dataclass(frozen=True, kw_only=True)
class AccuracyChange:
    """The primary score of two files on the same test images, which is of the `kind`. `interval` is that of
    `paired.change`, 95 %, by the paired bootstrap; None where no image was lost or gained. `other_answers` counts all
    images that they answer differently.

    Where images are graded, and not right or wrong, `grades` are the means of both files', and the interval and the
    verdict are those of their difference.
    """

    before: float
    after: float
    paired: Paired
    interval: Interval | None
    other_answers: int
    verdict: Change
    classes: tuple[ClassChange, ...] = ()
    lost: tuple[ChangedImage, ...] = ()
    gained: tuple[ChangedImage, ...] = ()
    kind: ScoreKind = ACCURACY
    grades: tuple[float, float] | None = None

    @property
    def difference(self) -> float:
        """What `interval` is the interval of."""
        return self.paired.change if self.grades is None else self.grades[1] - self.grades[0]


@dataclass(frozen=True, kw_only=True)
class BytesChange:
    """Two sizes, or two peaks of memory, in bytes; `ratio` is the second by the first."""

    before: int
    after: int
    ratio: float


@dataclass(frozen=True, kw_only=True)
class LatencyChange:
    """Two latencies. `ratio` is the second's time by the first's, None where `why_not` says that they are not compared.

    `together` says that both were measured turn by turn in this comparison, and not each in its own run.
    """

    before: Latency
    after: Latency
    ratio: float | None = None
    verdict: Change | None = None
    why_not: str | None = None
    together: bool = False


@dataclass(frozen=True, kw_only=True)
class DeviceChange:
    """A file of the first run and its partner on a device that one of the runs names.

    Accuracies are as each run measured them there on its first test images, and so are the task's primary scores;
    `differing` counts the images that are answered otherwise than on the machine of that run. Where there is no
    `latency`, `no_latency` says why.
    """

    device: str
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    differing_before: int | None = None
    differing_after: int | None = None
    latency: LatencyChange | None = None
    no_latency: str | None = None
    score_before: Score | None = None
    score_after: Score | None = None


@dataclass(frozen=True, kw_only=True)
class FileChange:
    """A file of the first run and its partner, that of the same export and role.

    Where a figure is None, a reason beside it says why. `score_before` and `score_after` are the task's primary scores
    as each run measured them on its own test split, `accuracy_before` and `accuracy_after` the accuracies; without an
    `accuracy`, which compares the primary scores, they are not of the same images.
    """

    export: str
    role: Role
    file_before: str
    file_after: str
    precision_before: str
    precision_after: str
    same_bytes: bool = False
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    accuracy: AccuracyChange | None = None
    no_accuracy: str | None = None
    size: BytesChange | None = None
    memory: BytesChange | None = None
    latency: LatencyChange | None = None
    no_latency: str | None = None
    devices: tuple[DeviceChange, ...] = ()
    score_before: Score | None = None
    score_after: Score | None = None

    @property
    def kind(self) -> ScoreKind:
        """What the primary score is."""
        score = self.score_before or self.score_after
        return score.kind if score else ACCURACY

    @property
    def title(self) -> str:
        """A short name, as in "onnx int8"."""
        if self.precision_before == self.precision_after:
            return f"{self.export} {self.precision_after}"
        return f"{self.export} {self.precision_before} → {self.precision_after}"


@dataclass(frozen=True, kw_only=True)
class Unpaired:
    """A file that is not compared: the `title` of its run, and why it has no partner. `made` is False where the file
    itself failed.
    """

    run: str
    file: str
    reason: str
    made: bool = True


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One thing in which two locks differ, by its dotted key; None is what one of them does not have.

    Places are "FILE:LINE" of the recipe where the value stands, None where it is a default, came from `--set`, or the
    recipe has changed since.
    """

    key: str
    before: Json = None
    after: Json = None
    before_at: str | None = None
    after_at: str | None = None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What `--gate` allows: a drop of accuracy, or of the primary score of another task, and the largest ratios of
    bytes and time.

    `asked` names the ones that were given, as in `--allow latency=1.10`.
    """

    accuracy: float = 0.0
    bytes: float = 1.01
    latency: float = 1.05
    asked: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One figure of one file under `--gate`. `passed` is None where it was not judged, and `reason` says why.

    `figure` is a ratio for "bytes" and "latency", and None for "file": that there is such a file at all. Any other name
    is that of the task's primary score, such as "accuracy", whose kind is `kind`; then it is how much worse that is.
    """

    name: str
    file: str
    passed: bool | None
    limit: float | None = None
    figure: float | None = None
    reason: str | None = None
    kind: ScoreKind | None = None


@dataclass(frozen=True, kw_only=True)
class RunChange:
    """A run against the first one. `run` is its title, `verdicts` what the figures mean, in sentences."""

    run: str
    files: tuple[FileChange, ...] = ()
    unpaired: tuple[Unpaired, ...] = ()
    recipe: tuple[Difference, ...] = ()
    versions: tuple[Difference, ...] = ()
    gates: tuple[Judged, ...] = ()
    verdicts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RunComparison:
    """All that a comparison found. The first of `runs` is the one that each of `changes` is against.

    `together` is the machine that all files were timed on, where that was asked for, and `not_timed` says of each file
    that could not be, by run and file, why.
    """

    edgeopt: str
    runs: tuple[ComparedRun, ...]
    changes: tuple[RunChange, ...]
    together: Device | None = None
    not_timed: Mapping[str, str] = field(default_factory=dict)
    limits: Limits | None = None
    schema: int = SCHEMA

    @property
    def first(self) -> ComparedRun:
        """The run that the others are held against."""
        return self.runs[0]

    @property
    def missed(self) -> tuple[tuple[RunChange, Judged], ...]:
        """The regressions that `--gate` found, each with the run that it is in."""
        return tuple((change, gate) for change in self.changes for gate in change.gates if gate.passed is False)

    def to_json(self) -> str:
        """The comparison as stable, indented JSON; figures that are not finite become "NaN" or "Infinity"."""
        from pydantic_core import to_json  # only whoever writes one needs it

        return to_json(self, indent=2, inf_nan_mode="strings").decode() + "\n"
