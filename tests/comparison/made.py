"""Folders of runs made by hand: a report, a lock, a record and answers, as a run leaves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from report.sample import DIGITS, make_report, make_row

from edgeopt.measure.latency import Latency
from edgeopt.pipeline.lock import Lock
from edgeopt.pipeline.record import RunRecord, Written
from edgeopt.report.kept_answers import RIGHT_OR_NOT, Graded, KeptAnswers
from edgeopt.report.schema import Report, Row
from edgeopt.tasks.scores import Score, ScoreKind
from edgeopt.types import Role

MAP = ScoreKind("map", "mAP")

RECIPE: dict[str, Any] = {
    "name": "made",
    "seed": 17,
    "dataset": {"use": "digits", "image_size": 32},
    "passes": [{"use": "train", "epochs": 8}, {"use": "ptq", "weight_bits": 8, "quantizer": {"use": "xnnpack"}}],
    "exports": [{"use": "onnx", "name": "onnx"}],
    "measure": {"threads": 1, "batch_size": 1},
}


def latency(p50: float, *, spread: float = 0.01, threads: int = 1, batch_size: int = 1, turns: int = 5) -> Latency:
    middle = [p50 * (1 + spread * (turn / max(turns - 1, 1) - 0.5)) for turn in range(turns)]
    return Latency(
        p50=p50,
        p90=p50 * (1 + spread),
        std=0.0,
        threads=threads,
        batch_size=batch_size,
        warmup=1,
        runs=100,
        rounds=turns,
        turns=tuple(middle),
    )


def row(export: str = "onnx", role: Role = Role.OPTIMIZED, **changes: Any) -> Row:
    return replace(make_row(role, export, suffix=f".{export}"), latency_ms=latency(2.0), **changes)


def answers(
    wrong: Mapping[str, Sequence[int]],
    *,
    count: int = 100,
    classes: Sequence[str] = DIGITS,
    start: int = 0,
    names: Sequence[str] = (),
) -> KeptAnswers:
    """Files that answer all images rightly but those at the places in `wrong`; images are known by their numbers."""
    labels = np.arange(count) % len(classes)
    files = {file: labels.copy() for file in wrong}
    for file, places in wrong.items():
        files[file][list(places)] = (labels[list(places)] + 1) % len(classes)
    images = np.arange(start, start + count, dtype=np.uint64) * 7919
    return KeptAnswers(tuple(classes), images, labels, files, tuple(names))


def graded(grades: Mapping[str, Sequence[float]], *, has: Sequence[Sequence[bool]] | None = None) -> KeptAnswers:
    """Files of a task without classes, by how well they answered each image; of two classes, each image has the first,
    unless `has` says otherwise.
    """
    count = len(next(iter(grades.values())))
    right = {file: np.array([int(grade >= 1) for grade in each]) for file, each in grades.items()}
    kept = Graded(
        ("cat", "dog"),
        np.array(has if has is not None else [[True, False]] * count),
        {file: np.array(each, dtype=np.float32) for file, each in grades.items()},
        {file: tuple(f"{round(10 * grade)} boxes" for grade in each) for file, each in grades.items()},
    )
    images = np.arange(count, dtype=np.uint64) * 7919
    return KeptAnswers(RIGHT_OR_NOT, images, np.ones(count, np.int64), right, (), kept)


def scored(row_: Row, value: float, kind: ScoreKind = MAP) -> Row:
    """A row of a task whose primary score is of the kind."""
    score = Score(value, (value - 0.1, value + 0.1), 100, kind)
    return replace(row_, test_accuracy=None, accuracy_interval=None, per_class=(), confusion=None, scores=(score,))


def make_run(
    folder: Path,
    kept: KeptAnswers | None = None,
    *,
    rows: Sequence[Row] | None = None,
    recipe: Mapping[str, Any] = RECIPE,
    ended: bool = True,
    versions: Mapping[str, str] = {"onnxruntime": "1.31.1"},
    **report: Any,
) -> Path:
    """Writes the folder of a run; each field of the report can be given."""
    rows = [row()] if rows is None else rows
    made: Report = replace(make_report(tuple(rows)), **report)
    made = replace(made, dataset=replace(made.dataset, splits={"test": len(kept.labels) if kept else 100}))
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(made.to_json())
    for each in rows:
        if not each.error:
            (folder / each.file).parent.mkdir(parents=True)
            (folder / each.file).write_bytes(each.file.encode())
    (folder / "lock.toml").write_text(Lock(recipe, versions, {}, made.dataset.fingerprint, {}).to_toml())
    if kept is not None:
        kept.write(folder / "answers.npz")
    written = {"report.json": Written.of(folder / "report.json")} if ended else {}
    RunRecord({}, written).write(folder)
    return folder
