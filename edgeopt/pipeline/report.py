"""From the results of a run's stages to its `Report`. Runs in a worker process, where numpy is at hand."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeopt._version import __version__
from edgeopt.measure.answers import Verification
from edgeopt.networks.saved import load_outline
from edgeopt.pipeline.results import Results
from edgeopt.plugins.versions import versions_behind
from edgeopt.recipe.plan import Plan, PlannedExport, StageKind
from edgeopt.report.gates import judge
from edgeopt.report.samples import choose_samples
from edgeopt.report.schema import (
    DatasetSummary,
    Environment,
    ProgramScore,
    RecipeSummary,
    Report,
    Row,
    Sample,
    SamplePrediction,
    StageRecord,
    class_scores,
)
from edgeopt.report.verdicts import verdicts
from edgeopt.types import TORCH

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.arrays import Labels, Logits

_SHOWN_CLASSES = 200  # a confusion matrix of more is not read by anybody


def build_report(results: Results, failures: Mapping[str, str], labels: Labels, log: str) -> Report:
    """The report of a run whose stages are all finished, but for the files in `failures`.

    `labels` are those of the test split, int64 (n,).
    """
    plan = results.plan
    rows = tuple(_row(planned, results, failures.get(planned.name), labels, log) for planned in plan.exports)
    stages = [name for name, stage in plan.stages.items() if stage.kind is StageKind.PROGRAM]
    programs = tuple(_program(results, name) for name in stages)
    passes = load_outline(results.folder(stages[-1])).history
    return Report(
        edgeopt=__version__,
        recipe=RecipeSummary(
            name=plan.recipe.name,
            description=plan.recipe.description,
            seed=plan.recipe.seed,
            file=plan.recipe.source.file,
            resolved=plan.resolved(),
        ),
        dataset=_dataset(results),
        environment=_environment(plan),
        rows=rows,
        programs=programs,
        passes=passes,
        gates=() if plan.smoke else judge(plan.recipe.gates, rows, programs),
        verdicts=(*verdicts(rows, passes, smoke=plan.smoke), *results.data().warnings),
        samples=_samples(results, failures, labels),
        stages=tuple(_stage_records(results, failures)),
        smoke=plan.smoke,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        float_model=plan.float_stage.key if plan.framework == TORCH else "",
    )


def shown_images(report: Report, pixels: Callable[[list[int]], NDArray[np.uint8]]) -> dict[int, NDArray[np.uint8]]:
    """The images of the report's samples by test index, uint8 (height, width, 3)."""
    indices = [sample.index for sample in report.samples]
    return dict(zip(indices, pixels(indices), strict=True)) if indices else {}


def _row(
    planned: PlannedExport,
    results: Results,
    error: str | None,
    labels: Labels,
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
        output=exported.output,
        facts=exported.facts,
        warnings=exported.warnings,
        converted=export.precision != program.precision,
        not_run=exported.not_run or None,
        stand_in=exported.stand_in or None,
    )
    verification = results.verification(planned)
    if verification is None:
        return row
    row = _with_answers(
        row, verification, np.load(results.folder(planned.verify_stage) / "logits.npy"), labels, program.classes
    )
    if row.stand_in:
        return row
    measured = results.measured(planned)
    return replace(row, latency_ms=measured.latency_ms, peak_memory_bytes=measured.peak_memory_bytes)


def _with_answers(row: Row, verification: Verification, logits: Logits, labels: Labels, classes: Sequence[str]) -> Row:
    confusion = _confusion(logits, labels, len(classes))
    return replace(
        row,
        test_accuracy=verification.test_accuracy,
        accuracy_interval=verification.accuracy_interval,
        agreement=verification.agreement,
        max_logit_difference=verification.max_logit_difference,
        confusion=confusion if len(classes) <= _SHOWN_CLASSES else None,
        per_class=class_scores(classes, confusion),
    )


def _confusion(logits: Logits, labels: Labels, classes: int) -> tuple[tuple[int, ...], ...]:
    """Counts of test images, `[true][predicted]`."""
    pairs = labels * classes + logits.argmax(axis=1)
    counts = np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
    return tuple(tuple(int(count) for count in row) for row in counts)


def _program(results: Results, name: str) -> ProgramScore:
    program = results.program(name)
    role = results.plan.stages[name].role
    assert role is not None  # every program has one
    return ProgramScore(role, program.precision, program.test_accuracy, program.accuracy_interval)


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


def _samples(results: Results, failures: Mapping[str, str], labels: Labels) -> tuple[Sample, ...]:
    """Test images with every file's answer, chosen by the answers of the last file that was made."""
    made = [
        planned
        for planned in results.plan.exports
        if planned.name not in failures and not results.export(planned).exported.not_run
    ]
    if not made:
        return ()
    logits = {planned.file: np.load(results.folder(planned.verify_stage) / "logits.npy") for planned in made}
    task = load_outline(results.folder(made[0].program_stage)).task
    chosen = choose_samples(labels.tolist(), logits[made[-1].file].argmax(axis=1).tolist())
    answers = {file: task.decode(values[list(chosen)]) for file, values in logits.items()}
    return tuple(
        Sample(
            index,
            int(labels[index]),
            {
                file: SamplePrediction(decoded[place].label, decoded[place].confidence)
                for file, decoded in answers.items()
            },
        )
        for place, index in enumerate(chosen)
    )


def _stage_records(results: Results, failures: Mapping[str, str]) -> Iterable[StageRecord]:
    plan = results.plan
    failed = {
        name
        for planned in plan.exports
        if planned.name in failures
        for name in (planned.export_stage, planned.verify_stage)
    }
    for stage in plan.stages.values():
        if stage.kind is StageKind.REPORT or stage.name in failed:
            continue
        if stage.kind is StageKind.MEASURE and len(failures) == len(plan.exports):
            continue
        yield StageRecord(stage.name, stage.label, results.find(stage.name).seconds)


def _environment(plan: Plan) -> Environment:
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        machine=platform.machine(),
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory_bytes=_memory_bytes(),
        versions={
            name: version for name, version in versions_behind(plan.uses, plan.framework).items() if name != "python"
        },
        commit=_commit(),
    )


def _commit() -> str | None:
    """The commit of edgeopt's own checkout, with "+" where files differ from it; None where it is
    installed otherwise.
    """
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", str(root)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+" if changes.stdout.strip() else "")


def _processor() -> str:
    """The processor's name, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # not every system counts its pages
        return None
