"""From the results of a run's stages to its `Report`. Runs in a worker process, where numpy is at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt._version import __version__
from edgeopt.arrays import OUTPUTS, load_outputs, of_images
from edgeopt.data.cache import KnownImages
from edgeopt.measure.answers import Verification, batch_warnings
from edgeopt.networks.saved import load_outline
from edgeopt.pipeline.results import Results
from edgeopt.plugins.versions import versions_behind
from edgeopt.recipe.notes import notes
from edgeopt.recipe.plan import Plan
from edgeopt.recipe.stage import PlannedExport, StageKind
from edgeopt.report.answers import has_answers, shown_file
from edgeopt.report.gates import judge
from edgeopt.report.kept_answers import RIGHT_OR_NOT, TOLD_LETTERS, Graded, KeptAnswers
from edgeopt.report.machine import this_machine
from edgeopt.report.samples import choose_samples
from edgeopt.report.schema import (
    DatasetSummary,
    MeasuredDevice,
    ProgramScore,
    RecipeSummary,
    Report,
    Row,
    Sample,
    SamplePrediction,
    StageRecord,
    class_scores,
)
from edgeopt.report.training import training_of
from edgeopt.report.verdicts import verdicts
from edgeopt.tasks.base import Task
from edgeopt.tasks.statistics import Paired, paired
from edgeopt.types import TORCH, Role

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.arrays import Labels, Outputs

_SHOWN_CLASSES = 200  # a confusion matrix of more is not read by anybody


def build_report(
    results: Results, failures: Mapping[str, str], away: Mapping[str, str], targets: Any, log: str
) -> Report:
    """The report of a run whose stages are all finished, but for the files in `failures` and the device stages in
    `away`.

    `targets` are those of the test split.
    """
    plan = results.plan
    answers = _Answers(results, failures, targets)
    rows = tuple(_row(planned, results, failures.get(planned.name), answers, log) for planned in plan.exports)
    stages = [name for name, stage in plan.stages.items() if stage.kind is StageKind.PROGRAM]
    programs = tuple(_program(results, name) for name in stages)
    passes = load_outline(results.folder(stages[-1])).history
    float_passes = len(load_outline(results.folder(stages[0])).history)
    devices = tuple(_devices(results, away))
    return Report(
        edgeopt=__version__,
        recipe=RecipeSummary(
            name=plan.recipe.name,
            description=plan.recipe.description,
            seed=plan.recipe.seed,
            file=plan.recipe.source.file,
            resolved={**plan.resolved(), **({"devices": plan.named_devices} if plan.devices else {})},
        ),
        dataset=_dataset(results),
        environment=this_machine(versions_behind(plan.uses, plan.framework)),
        rows=rows,
        programs=programs,
        passes=passes,
        gates=()
        if plan.smoke
        else judge(plan.recipe.gates, rows, programs, training_of(passes, float_passes), devices),
        devices=devices,
        verdicts=(
            *verdicts(rows, passes, float_passes=float_passes, smoke=plan.smoke, devices=devices),
            *_left_out(plan),
            *results.data().warnings,
            *notes(plan),
        ),
        samples=_samples(answers, rows),
        stages=tuple(_stage_records(results, failures, away)),
        smoke=plan.smoke,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        float_model=plan.float_stage.key if plan.framework == TORCH else "",
    )


def kept_answers(results: Results, report: Report, targets: Any) -> KeptAnswers:
    """What each file that answered took each test image for, or how well it answered where answers are no classes;
    `targets` are those of the test split. The outputs of one file at a time are in memory.
    """
    answered = {row.file for row in report.rows if has_answers(row)}
    known, classes = KnownImages.read(results.folder("data")), report.dataset.classes
    answers = _Answers(results, {}, targets)
    labels: Labels | None = targets if answers.task.is_of_classes else None
    taken: dict[str, Labels] = {}
    grades: dict[str, NDArray[np.float32]] = {}
    told: dict[str, tuple[str, ...]] = {}
    for planned in results.plan.exports:
        if planned.file not in answered:
            continue
        task, outputs = answers.task_of(planned), answers.of_file(planned)
        if (pair := answers.task.as_classes(outputs, targets)) is not None:
            labels, taken[planned.file] = pair
            continue
        taken[planned.file] = task.right(outputs, targets).astype(np.int64)
        grades[planned.file] = task.grades(outputs, targets).astype(np.float32)
        told[planned.file] = tuple(task.told(each, classes)[:TOLD_LETTERS] for each in task.decode(outputs))
    if labels is not None:
        return KeptAnswers(classes, known.digests, labels, taken, known.names)
    has = answers.task.membership(targets, len(classes))
    graded = Graded(
        classes if has is not None else (),
        has if has is not None else np.zeros((len(targets), 0), dtype=bool),
        grades,
        told,
    )
    return KeptAnswers(RIGHT_OR_NOT, known.digests, np.ones(len(targets), np.int64), taken, known.names, graded)


def shown_images(report: Report, pixels: Callable[[list[int]], NDArray[np.uint8]]) -> dict[int, NDArray[np.uint8]]:
    """The images of the report's samples by test index, uint8 (height, width, 3)."""
    detailed = shown_file(report.rows)
    shown = (image.index for section in (detailed.sections if detailed else ()) for image in section.images)
    indices = list(dict.fromkeys([*(sample.index for sample in report.samples), *shown]))
    return dict(zip(indices, pixels(indices), strict=True)) if indices else {}


@dataclass(frozen=True)
class _Answers:
    """Outputs on the test split, and its targets."""

    results: Results
    failures: Mapping[str, str]
    targets: Any

    @property
    def task(self) -> Task:
        """The task of the run as its programs have it, which know what the model has told it."""
        exports = self.results.plan.exports
        return load_outline(self.results.folder(exports[0].program_stage)).task if exports else self.results.plan.task

    def task_of(self, planned: PlannedExport) -> Task:
        """The task with what was chosen by the program that a file was made from."""
        return load_outline(self.results.folder(planned.program_stage)).task

    def of_file(self, planned: PlannedExport) -> Outputs:
        """What a verified file answered."""
        return self._read(planned.verify_stage)

    def of_float_file(self, planned: PlannedExport) -> tuple[Task, Outputs] | None:
        """What the float file of the same export answered, None where there is none that did."""
        found = (
            other
            for other in self.results.plan.exports
            if other.role is Role.BASELINE and other.folder == planned.folder and other.name not in self.failures
        )
        other = next(found, None)
        if other is None or self.results.verification(other) is None:
            return None
        return self.task_of(other), self.of_file(other)

    def of_float_program(self) -> tuple[Task, Outputs] | None:
        """What the float program answered in its own framework."""
        stages = self.results.plan.stages.values()
        found = (each.name for each in stages if each.kind is StageKind.PROGRAM and each.role is Role.BASELINE)
        name = next(found, None)
        return None if name is None else (load_outline(self.results.folder(name)).task, self._read(name))

    def _read(self, stage: str) -> Outputs:
        return load_outputs(self.results.folder(stage) / OUTPUTS)


def _row(
    planned: PlannedExport,
    results: Results,
    error: str | None,
    answers: _Answers,
    log: str,
) -> Row:
    program = load_outline(results.folder(planned.program_stage))
    runtime, role = planned.use.plugin.runtime, planned.role
    if error is not None:
        return Row(
            runtime=runtime,
            export=planned.folder,
            file=planned.file,
            precision=program.precision,
            role=role,
            error=error,
            log=log,
        )
    export = results.export(planned)
    exported = export.exported
    row = Row(
        runtime=runtime,
        export=planned.folder,
        file=planned.file,
        precision=export.precision,
        role=role,
        size_bytes=export.size_bytes,
        compressed_bytes=export.compressed_bytes,
        delegated_share=exported.delegated_share,
        outside=exported.outside,
        sha256=export.sha256,
        input=exported.input,
        output=exported.outputs[0],
        outputs=exported.outputs if len(exported.outputs) > 1 else (),
        facts=exported.facts,
        footprint=exported.footprint,
        warnings=(*exported.warnings, *batch_warnings(exported, results.plan.measure.batch_size)),
        converted=export.precision != program.precision,
        not_run=exported.not_run or None,
        stand_in=exported.stand_in or None,
    )
    verification = results.verification(planned)
    if verification is None:
        return row
    row = _with_answers(row, verification, program.task, answers.targets, answers.of_file(planned), program.classes)
    row = _compared(row, planned, answers)
    if row.stand_in:
        return row
    measured = results.measured(planned)
    return replace(
        row,
        latency_ms=measured.latency_ms,
        peak_memory_bytes=measured.peak_memory_bytes,
        energy=measured.energy,
        energy_problem=measured.energy_problem,
    )


def _with_answers(
    row: Row, verification: Verification, task: Task, targets: Any, outputs: Outputs, classes: Sequence[str]
) -> Row:
    pair = task.as_classes(outputs, targets)
    confusion = None if pair is None else _confusion(*pair, len(classes))
    return replace(
        row,
        scores=verification.scores,
        sections=task.sections(outputs, targets, classes),
        guess=None if pair is not None else task.guess(outputs, targets, classes),
        test_accuracy=verification.test_accuracy,
        accuracy_interval=verification.accuracy_interval,
        agreement=verification.agreement,
        differing=verification.differing,
        near_ties=verification.near_ties,
        max_logit_difference=verification.max_logit_difference,
        output_differences=verification.outputs,
        confusion=confusion if len(classes) <= _SHOWN_CLASSES else None,
        per_class=() if confusion is None else class_scores(classes, confusion),
    )


def _compared(row: Row, planned: PlannedExport, answers: _Answers) -> Row:
    """The row with its answers compared, image by image, with those of the float file and of the float program."""
    task, after, targets = answers.task_of(planned), answers.of_file(planned), answers.targets
    file = answers.of_float_file(planned) if row.role is Role.OPTIMIZED else None
    program = answers.of_float_program()
    return replace(
        row,
        against_float_file=None if file is None else _paired(*file, task, after, targets),
        against_float_program=None if program is None else _paired(*program, task, after, targets),
    )


def _paired(before_task: Task, before: Outputs, task: Task, after: Outputs, targets: Any) -> Paired:
    """How many images are answered worse and better, each side judged with what was chosen for it."""
    if before_task == task:
        return task.compare(before, after, targets)
    first, second = before_task.grades(before, targets), task.grades(after, targets)
    return paired(len(first), int((second < first).sum()), int((second > first).sum()))


def _confusion(labels: Labels, answers: Labels, classes: int) -> tuple[tuple[int, ...], ...]:
    """Counts of test images, `[true][predicted]`."""
    pairs = labels * classes + answers
    counts = np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
    return tuple(tuple(int(count) for count in row) for row in counts)


def _program(results: Results, name: str) -> ProgramScore:
    program = results.program(name)
    role = results.plan.stages[name].role
    assert role is not None  # every program has one
    cost = program.cost
    return ProgramScore(
        role,
        program.precision,
        program.test_accuracy,
        program.accuracy_interval,
        macs=cost.macs if cost else None,
        parameters=cost.parameters if cost else None,
        scores=program.scores,
    )


def _dataset(results: Results) -> DatasetSummary:
    data = results.data()
    return DatasetSummary(
        name=results.plan.dataset.plugin.name,
        classes=data.classes,
        splits={name: split.count for name, split in data.splits.items()},
        fingerprint=data.fingerprint,
        preprocessing=data.preprocessing,
        per_class={name: tuple(split.per_class.values()) for name, split in data.splits.items()},
        skipped=len(data.skipped),
        groups=data.groups,
    )


def _samples(answers: _Answers, rows: Sequence[Row]) -> tuple[Sample, ...]:
    """Test images with every file's answer, chosen by the answers of the file that the page shows; none of a task whose
    answers are no classes, which shows images in its sections.
    """
    results, task = answers.results, answers.task
    shown = shown_file(rows)
    if shown is None:
        return ()
    answered = {row.file for row in rows if has_answers(row)}
    made = [planned for planned in results.plan.exports if planned.file in answered]
    of_shown = answers.of_file(next(planned for planned in made if planned.file == shown.file))
    pair = task.as_classes(of_shown, answers.targets)
    if pair is None:
        return ()
    labels = pair[0]
    chosen = choose_samples(labels.tolist(), pair[1].tolist())
    told = {
        planned.file: answers.task_of(planned).decode(of_images(answers.of_file(planned), list(chosen)))
        for planned in made
    }
    return tuple(
        Sample(
            index,
            int(labels[index]),
            {file: SamplePrediction(decoded[place].label, decoded[place].confidence) for file, decoded in told.items()},
        )
        for place, index in enumerate(chosen)
    )


def _devices(results: Results, away: Mapping[str, str]) -> Iterable[MeasuredDevice]:
    for stage in results.plan.stages.values():
        if stage.kind is not StageKind.DEVICE:
            continue
        name, kind = results.plan.recipe.devices[stage.index].called, results.plan.devices[stage.index].plugin.name
        if stage.name in away:
            yield MeasuredDevice(name=name, kind=kind, error=away[stage.name])
            continue
        found = results.there(stage.name)
        yield MeasuredDevice(name=name, kind=kind, facts=found.facts, files=found.files)


def _left_out(plan: Plan) -> Iterable[str]:
    names = ", ".join(step.called for step in plan.recipe.devices)
    if names and plan.without_devices:
        judged = "; gates on devices were not judged" if plan.recipe.gates.devices else ""
        yield f"Devices were left out of this run ({names}){judged}."


def _stage_records(results: Results, failures: Mapping[str, str], away: Mapping[str, str]) -> Iterable[StageRecord]:
    plan = results.plan
    failed = {
        name
        for planned in plan.exports
        if planned.name in failures
        for name in (planned.export_stage, planned.verify_stage)
    }
    for stage in plan.stages.values():
        if stage.kind is StageKind.REPORT or stage.name in failed or stage.name in away:
            continue
        if stage.kind is StageKind.MEASURE and len(failures) == len(plan.exports):
            continue
        yield StageRecord(stage.name, stage.label, results.find(stage.name).seconds)
