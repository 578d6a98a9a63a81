"""The shape of `report.json`, version 1; `docs/report.md` describes every field.

Readers ignore fields that they do not know, so fields may be added with a default and without a new version.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgeopt.arrays import Json
from edgeopt.errors import UserError
from edgeopt.measure.answers import OutputDifference
from edgeopt.measure.latency import Latency
from edgeopt.measure.on_device import FileThere
from edgeopt.plugins.device import DeviceFacts
from edgeopt.plugins.energy_use import EnergyUse
from edgeopt.report import figures
from edgeopt.report.figures import MISSING
from edgeopt.tasks.guessing import Guess
from edgeopt.tasks.scores import DROP, Score, ScoreKind, led_by_accuracy
from edgeopt.tasks.sections import Section
from edgeopt.tasks.statistics import Paired
from edgeopt.types import Footprint, PassRecord, Role, TensorInfo

SCHEMA = 1

GATES_FROM_ABOVE = frozenset({"accuracy_drop", "latency_ratio", "p50_ms", "energy_mj", "ram_bytes", "flash_bytes"})
"""Gates that bound a figure from above; the others bound theirs from below."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class ClassScore:
    """How one class fares; a share of nothing (no such images, never predicted) is None."""

    name: str
    precision: float | None
    recall: float | None
    support: int


@dataclass(frozen=True, kw_only=True)
class Row:
    """One file, opened in its own runtime and measured there. When it failed, `error` says why and its figures are
    None.

    `against_float_file` compares its answers with those of the float file of the same export, and
    `against_float_program` with those of the float program in PyTorch, image by image. `differing` counts the images
    that the program it was made from answers otherwise, `near_ties` those of them that rounding alone can decide. Where
    a file gives several outputs, `outputs` describes them, `output` being the first, and `output_differences` says how
    far each is from the program's. `scores` are those of the task, the primary one first, each with its interval;
    `test_accuracy` and its interval say again the one of that name. `sections` are what the task shows of the file's
    answers besides, and `guess` in what way these are no more than a guess, for a task without classes.
    `footprint` is what it takes of a microcontroller, where the runtime is one for those. `energy` is that of an image
    where the recipe asks this machine's meter, and `energy_problem` says why it is not known.
    `converted` says that the exporter changed the precision. Where this machine cannot run the file, `not_run` says why
    and the figures of answers and latency are None; where another runtime answered in its place, `stand_in` names it
    and there is no latency.
    """

    runtime: str
    export: str
    file: str
    precision: str
    role: Role
    test_accuracy: float | None = None
    accuracy_interval: Interval | None = None
    against_float_file: Paired | None = None
    against_float_program: Paired | None = None
    agreement: float | None = None
    differing: int | None = None
    near_ties: int | None = None
    max_logit_difference: float | None = None
    size_bytes: int | None = None
    compressed_bytes: int | None = None
    latency_ms: Latency | None = None
    peak_memory_bytes: int | None = None
    delegated_share: float | None = None
    outside: tuple[str, ...] = ()
    sha256: str | None = None
    input: TensorInfo | None = None
    output: TensorInfo | None = None
    outputs: tuple[TensorInfo, ...] = ()
    output_differences: tuple[OutputDifference, ...] = ()
    facts: Mapping[str, Json] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    confusion: tuple[tuple[int, ...], ...] | None = None
    per_class: tuple[ClassScore, ...] = ()
    error: str | None = None
    log: str | None = None
    converted: bool = False
    not_run: str | None = None
    stand_in: str | None = None
    scores: tuple[Score, ...] = ()
    sections: tuple[Section, ...] = ()
    guess: Guess | None = None
    footprint: Footprint | None = None
    energy: EnergyUse | None = None
    energy_problem: str | None = None

    def __post_init__(self) -> None:
        images = sum(score.support for score in self.per_class)
        told = led_by_accuracy(self.scores, self.test_accuracy, self.accuracy_interval, images)
        object.__setattr__(self, "scores", told)  # frozen, and complete from here on

    @property
    def score(self) -> Score | None:
        """The primary score; None where the file did not answer."""
        return self.scores[0] if self.scores else None

    def score_named(self, name: str) -> Score | None:
        """The score of that name."""
        return next((score for score in self.scores if score.kind.name == name), None)


@dataclass(frozen=True)
class ProgramScore:
    """What a program scores on the test split in PyTorch, before any export, and what one image costs in it.

    `macs` are multiply-accumulate operations; None for a model of another framework. `scores` are as those of a file.
    """

    role: Role
    precision: str
    test_accuracy: float | None = None
    accuracy_interval: Interval | None = None
    macs: int | None = None
    parameters: int | None = None
    scores: tuple[Score, ...] = ()

    def __post_init__(self) -> None:
        told = led_by_accuracy(self.scores, self.test_accuracy, self.accuracy_interval, 0)
        object.__setattr__(self, "scores", told)  # as above

    @property
    def score(self) -> Score | None:
        """The primary score."""
        return self.scores[0] if self.scores else None

    def score_named(self, name: str) -> Score | None:
        """The score of that name."""
        return next((score for score in self.scores if score.kind.name == name), None)


@dataclass(frozen=True, kw_only=True)
class MeasuredDevice:
    """One of the recipe's devices, `kind` the plugin that reaches it, and what the files did there.

    `facts` are what it said of itself when its work was done. Where it could not be used to the end, `error` says why
    and there are no `files`.
    """

    name: str
    kind: str
    facts: DeviceFacts | None = None
    error: str | None = None
    files: tuple[FileThere, ...] = ()


@dataclass(frozen=True)
class GateResult:
    """One gate of the recipe, judged on one file; `figure` is None, with a `reason`, where it could not be had.
    `device` is where it was judged, None for this machine.

    A `reason` beside a figure says why the gate is missed whatever the figure is. `against` says what a comparison is
    with, `paired` counts the images behind a drop of accuracy, and `note` is what the reader must know of it.
    `kind` is the score that a gate is about, None where it is about something else.
    """

    name: str
    limit: float
    figure: float | None
    passed: bool
    file: str | None = None
    reason: str | None = None
    against: str | None = None
    paired: Paired | None = None
    note: str | None = None
    device: str | None = None
    kind: ScoreKind | None = None

    @property
    def is_from_above(self) -> bool:
        """Whether the gate bounds its figure from above."""
        return is_from_above(self.name, self.kind)

    @property
    def figure_text(self) -> str:
        """The figure as people read it: shares in per cent, ratios as factors."""
        return self._text(self.figure)

    @property
    def limit_text(self) -> str:
        """The limit and which side of it is right, as in "≥ 99.00 %"."""
        return f"{'≤' if self.is_from_above else '≥'} {self._text(self.limit)}"

    @property
    def message(self) -> str:
        """The outcome in a sentence."""
        where = (f" of {self.file}" if self.file else "") + (f" on {self.device}" if self.device else "")
        if self.figure is None:
            return f"gate {self.name}{where} could not be judged (limit {self.limit_text}): {self.reason}"
        outcome = "was reached" if self.passed else "was missed"
        details = "; ".join([f"limit {self.limit_text}", *self.details])
        return f"gate {self.name}{where} {outcome}: {self.figure_text} ({details})"

    @property
    def details(self) -> tuple[str, ...]:
        """What belongs to the figure: what it is compared with, the images behind it, and what speaks against it."""
        found = [f"against {self.against}"] if self.against else []
        if self.paired is not None:
            found.append(figures.counted(self.paired))
        return (*found, *(text for text in (self.reason, self.note) if text))

    def _text(self, value: float | None) -> str:
        if value is None:
            return MISSING
        if self.kind is not None and not self.kind.is_share:
            return self.kind.text(value)
        if self.name.endswith("_ms"):
            return figures.milliseconds(value)
        if self.name.endswith("_mj"):
            return figures.millijoules(value)
        if self.name.endswith("_bytes"):
            return f"{value:,.0f} bytes"
        return f"{value:.2f}×" if self.name.endswith("_ratio") else f"{100 * value:.2f} %"


@dataclass(frozen=True)
class StageRecord:
    """One stage of the run; `seconds` is what its work took, also when an earlier run did it."""

    name: str
    label: str
    seconds: float


@dataclass(frozen=True)
class SamplePrediction:
    """What a file took an image for; `label` is a class index, `confidence` 0 to 1."""

    label: int
    confidence: float


@dataclass(frozen=True)
class Sample:
    """One test image and what each file took it for; `predictions` is keyed by the row's `file`."""

    index: int
    label: int
    predictions: Mapping[str, SamplePrediction]


@dataclass(frozen=True, kw_only=True)
class RecipeSummary:
    """The recipe in short; `resolved` has every option written out."""

    name: str
    description: str = ""
    seed: int
    file: str | None = None
    resolved: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DatasetSummary:
    """The data set after classes were chosen and splits drawn; `splits` counts the images of each.

    `groups` counts, where the data set names groups such as speakers, those that each split has images of.
    """

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, int]
    fingerprint: str
    preprocessing: Mapping[str, Json]
    per_class: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    skipped: int = 0
    groups: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The machine and the versions behind the figures; `commit` is edgeopt's own where it runs from a checkout."""

    python: str
    platform: str
    machine: str
    processor: str
    cores: int
    memory_bytes: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    commit: str | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that a run found.

    `float_model` is the key of the float model in the run's store, empty for a model of another framework than PyTorch.
    """

    edgeopt: str
    recipe: RecipeSummary
    dataset: DatasetSummary
    environment: Environment
    rows: tuple[Row, ...]
    programs: tuple[ProgramScore, ...] = ()
    passes: tuple[PassRecord, ...] = ()
    gates: tuple[GateResult, ...] = ()
    devices: tuple[MeasuredDevice, ...] = ()
    verdicts: tuple[str, ...] = ()
    samples: tuple[Sample, ...] = ()
    stages: tuple[StageRecord, ...] = ()
    smoke: bool = False
    finished: str | None = None
    float_model: str = ""
    schema: int = SCHEMA

    def to_json(self) -> str:
        """The report as stable, indented JSON; figures that are not finite become "NaN", "Infinity" or "-Infinity"."""
        from pydantic_core import to_json  # only whoever writes a report needs it

        text = to_json(self, indent=2, inf_nan_mode="strings").decode()
        return _numbers_on_one_line(text) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Report:
        """The report that `to_json` wrote.

        Raises `UserError` when `text` is no report, or one of a schema that this version does not know.
        """
        from pydantic import TypeAdapter, ValidationError  # only whoever reads a report needs it
        from pydantic_core import from_json

        try:
            values = from_json(text)
        except ValueError as error:
            raise UserError(f"not a report: {error}", hint="run the recipe again to write it anew") from None
        schema = values.get("schema") if isinstance(values, dict) else None
        if schema != SCHEMA:
            raise UserError(
                f"not a report of schema {SCHEMA}: it says schema = {schema!r}",
                hint="read it with the version of edgeopt that wrote it, or run the recipe again",
            )
        try:
            return TypeAdapter(cls).validate_python(values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UserError(
                f"not a report: {where}: {first['msg']}", hint="run the recipe again to write it anew"
            ) from None


def is_from_above(name: str, kind: ScoreKind | None) -> bool:
    """Whether the gate `name`, on a score of `kind` or on something else, bounds its figure from above."""
    if kind is not None and name == kind.name:
        return not kind.larger_is_better
    return name in GATES_FROM_ABOVE or name.endswith(DROP)


def class_scores(classes: Sequence[str], confusion: Sequence[Sequence[int]]) -> tuple[ClassScore, ...]:
    """Precision, recall and support of each class; `confusion[true][predicted]` counts test images."""
    scores = []
    for index, name in enumerate(classes):
        right = confusion[index][index]
        support = sum(confusion[index])
        predicted = sum(row[index] for row in confusion)
        scores.append(
            ClassScore(name, right / predicted if predicted else None, right / support if support else None, support)
        )
    return tuple(scores)


def _numbers_on_one_line(text: str) -> str:
    """Indented JSON with each list of bare numbers on one line, so that a confusion matrix reads like one."""
    # a JSON string holds neither raw newlines nor, here, quotes: only true lists match
    return re.sub(r'\[\n\s*([^\[\]{}"]+?)\n\s*\]', lambda found: f"[{' '.join(found[1].split())}]", text)
