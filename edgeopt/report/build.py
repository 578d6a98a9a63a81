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

import edgeopt
from edgeopt.fingerprint import versions_of
from edgeopt.measure import Latency
from edgeopt.plan import Plan, PlannedExport, StageKind
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
from edgeopt.states import load_outline
from edgeopt.store import Result
from edgeopt.types import Json, TensorInfo

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.types import Labels, Logits

_SHOWN_CLASSES = 200  # a confusion matrix of more is not read by anybody


def build_report(
    plan: Plan, result: Callable[[str], Result], failures: Mapping[str, str], labels: Labels, log: str
) -> Report:
    """The report of a run whose stages are all finished, but for the files in `failures`.

    `result` gives a stage's result by name; `labels` are those of the test split, int64 (n,).
    """
    rows = tuple(_row(planned, result, failures.get(planned.name), labels, log) for planned in plan.exports)
    stages = [name for name, stage in plan.stages.items() if stage.kind is StageKind.PROGRAM]
    programs = tuple(_program(plan, name, result) for name in stages)
    passes = load_outline(result(stages[-1]).folder).history
    return Report(
        edgeopt=edgeopt.__version__,
        recipe=RecipeSummary(
            name=plan.recipe.name,
            description=plan.recipe.description,
            seed=plan.recipe.seed,
            file=plan.recipe.source.file,
            resolved=plan.resolved(),
        ),
        dataset=_dataset(plan, result("data").values),
        environment=_environment(plan),
        rows=rows,
        programs=programs,
        passes=passes,
        gates=() if plan.smoke else judge(plan.recipe.gates, rows, programs),
        verdicts=(*verdicts(rows, passes, smoke=plan.smoke), *result("data").values["warnings"]),
        samples=_samples(plan, result, failures, labels),
        stages=tuple(_stage_records(plan, result, failures)),
        smoke=plan.smoke,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def shown_pictures(report: Report, pixels: Callable[[list[int]], NDArray[np.uint8]]) -> dict[int, NDArray[np.uint8]]:
    """The pictures of the report's samples by test index, uint8 (height, width, 3)."""
    indices = [sample.index for sample in report.samples]
    return dict(zip(indices, pixels(indices), strict=True)) if indices else {}


def _row(
    planned: PlannedExport,
    result: Callable[[str], Result],
    error: str | None,
    labels: Labels,
    log: str,
) -> Row:
    program = load_outline(result(planned.program_stage).folder)
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
    export = result(planned.export_stage).values
    row = Row(
        runtime=runtime,
        export=planned.folder,
        file=planned.file,
        precision=export["precision"],
        role=role,
        size_bytes=export["size_bytes"],
        compressed_bytes=export["compressed_bytes"],
        delegated_share=export["delegated_share"],
        outside=tuple(export["outside"]),
        sha256=export["sha256"],
        input=_tensor(export["input"]),
        output=_tensor(export["output"]),
        facts=export["facts"],
        warnings=tuple(export["warnings"]),
        converted=export["precision"] != program.precision,
        not_run=export["not_run"] or None,
        stand_in=export["stand_in"] or None,
    )
    if row.not_run:
        return row
    row = _with_answers(row, result(planned.verify_stage), labels, program.classes)
    return row if row.stand_in else _with_latency(row, result("measure").values[planned.name])


def _with_answers(row: Row, verified: Result, labels: Labels, classes: Sequence[str]) -> Row:
    values = verified.values
    confusion = _confusion(np.load(verified.folder / "logits.npy"), labels, len(classes))
    return replace(
        row,
        test_accuracy=values["test_accuracy"],
        accuracy_interval=tuple(values["accuracy_interval"]),
        agreement=values["agreement"],
        max_logit_difference=values["max_logit_difference"],
        confusion=confusion if len(classes) <= _SHOWN_CLASSES else None,
        per_class=class_scores(classes, confusion),
    )


def _with_latency(row: Row, measured: Mapping[str, Json]) -> Row:
    latency = Latency(**measured["latency_ms"])
    return replace(row, latency_ms=latency, peak_memory_bytes=measured["peak_memory_bytes"])


def _tensor(values: Mapping[str, Json]) -> TensorInfo:
    return TensorInfo(**{**values, "shape": tuple(values["shape"])})


def _confusion(logits: Logits, labels: Labels, classes: int) -> tuple[tuple[int, ...], ...]:
    """Counts of test pictures, `[true][predicted]`."""
    pairs = labels * classes + logits.argmax(axis=1)
    counts = np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
    return tuple(tuple(int(count) for count in row) for row in counts)


def _program(plan: Plan, name: str, result: Callable[[str], Result]) -> ProgramScore:
    values = result(name).values
    role = plan.stages[name].role
    assert role is not None  # every program has one
    return ProgramScore(role, values["precision"], values["test_accuracy"], tuple(values["accuracy_interval"]))


def _dataset(plan: Plan, values: Mapping[str, Json]) -> DatasetSummary:
    return DatasetSummary(
        name=plan.dataset.plugin.name,
        classes=tuple(values["classes"]),
        splits={name: split["count"] for name, split in values["splits"].items()},
        fingerprint=values["fingerprint"],
        preprocessing=values["preprocessing"],
        per_class={name: tuple(split["per_class"].values()) for name, split in values["splits"].items()},
        skipped=len(values["skipped"]),
        groups=values.get("groups", {}),  # a stage may be older than groups are
    )


def _samples(
    plan: Plan, result: Callable[[str], Result], failures: Mapping[str, str], labels: Labels
) -> tuple[Sample, ...]:
    """Test pictures with every file's answer, chosen by the answers of the last file that was made."""
    made = [
        planned
        for planned in plan.exports
        if planned.name not in failures and not result(planned.export_stage).values["not_run"]
    ]
    if not made:
        return ()
    logits = {planned.file: np.load(result(planned.verify_stage).folder / "logits.npy") for planned in made}
    task = load_outline(result(made[0].program_stage).folder).task
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


def _stage_records(plan: Plan, result: Callable[[str], Result], failures: Mapping[str, str]) -> Iterable[StageRecord]:
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
        yield StageRecord(stage.name, stage.label, result(stage.name).seconds)


def _environment(plan: Plan) -> Environment:
    required = {name for use in plan.uses for name in use.plugin.requires}
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        machine=platform.machine(),
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory_bytes=_memory_bytes(),
        versions=versions_of({"edgeopt", "numpy", "torch", *required}),
        commit=_commit(),
    )


def _commit() -> str | None:
    """The commit of edgeopt's own checkout, with "+" where files differ from it; None where it is installed otherwise."""
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
