"""A realistic report, made by hand: eleven figures a file, two runtimes, a float and an int8 file of each."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from edgeopt.recipe.gates import Gates
from edgeopt.report.gates import judge
from edgeopt.report.schema import (
    DatasetSummary,
    Environment,
    Latency,
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
from edgeopt.tasks.statistics import paired, wilson_interval
from edgeopt.types import Curve, PassRecord, Role, TensorInfo

DIGITS = tuple(str(digit) for digit in range(10))
PREPROCESSING = {
    "image_size": 64,
    "resize": 64,
    "crop": 64,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "interpolation": "bilinear",
    "channel_order": "RGB",
}
RECIPE_TEXT = """\
schema = 1
name = "mobilenetv3-qat-android"
seed = 17

[dataset]
use = "digits"
image_size = 64

[[passes]]
use = "train"   # a comment with <b>markup</b> & an ampersand
epochs = 8
"""


def confusion_of(classes: Sequence[str], wrong: int, count: int = 27, seed: int = 0) -> tuple[tuple[int, ...], ...]:
    """`count` images of each class, `wrong` of them in all taken for another class."""
    matrix = np.eye(len(classes), dtype=int) * count
    generator = np.random.default_rng(seed)
    for _ in range(wrong):
        true, predicted = generator.choice(len(classes), size=2, replace=False)
        matrix[true, true] -= 1
        matrix[true, predicted] += 1
    return tuple(tuple(int(cell) for cell in row) for row in matrix)


def latency(p50: float, spread: float = 0.05, std: float | None = None) -> Latency:
    return Latency(
        p50=p50,
        p90=p50 * (1 + spread),
        std=p50 * spread if std is None else std,
        threads=2,
        warmup=10,
        runs=100,
        batch_size=1,
        rounds=5,
        p99=p50 * (1 + 2 * spread),
        load=20 * p50,
        first=3 * p50,
        images_per_s=1000 / p50,
    )


def make_row(
    role: Role = Role.OPTIMIZED,
    export: str = "executorch",
    *,
    wrong: int = 3,
    classes: Sequence[str] = DIGITS,
    count: int = 27,
    size_bytes: int = 1_790_000,
    p50: float = 1.93,
    suffix: str = ".pte",
    delegated: float | None = 0.984,
    outside: tuple[str, ...] = (),
) -> Row:
    total = count * len(classes)
    confusion = confusion_of(classes, wrong, count)
    return Row(
        runtime=export,
        export=export,
        file=f"{export}/{role}/model{suffix}",
        precision="float32" if role is Role.BASELINE else "int8",
        role=role,
        test_accuracy=(total - wrong) / total,
        accuracy_interval=wilson_interval(total - wrong, total),
        against_float_file=None if role is Role.BASELINE else paired(total, lost=2, gained=1),
        against_float_program=paired(total, lost=0 if role is Role.BASELINE else 2, gained=0),
        agreement=1.0 if role is Role.BASELINE else 0.9963,
        max_logit_difference=2.4e-6 if role is Role.BASELINE else 0.1271,
        size_bytes=size_bytes,
        compressed_bytes=int(size_bytes * 0.87),
        latency_ms=latency(p50),
        peak_memory_bytes=84_300_000 if role is Role.BASELINE else 61_200_000,
        delegated_share=delegated,
        outside=outside,
        sha256=hashlib.sha256(f"{export} {role}".encode()).hexdigest(),
        input=TensorInfo("input", "float32", ("batch", 3, 64, 64), "NCHW"),
        output=TensorInfo("logits", "float32", ("batch", len(classes)), "NC"),
        confusion=confusion,
        per_class=class_scores(classes, confusion),
    )


def four_rows(classes: Sequence[str] = DIGITS, count: int = 27) -> tuple[Row, ...]:
    shape = {"classes": classes, "count": count}
    return (
        make_row(Role.BASELINE, "executorch", wrong=2, size_bytes=6_216_448, p50=4.81, delegated=1.0, **shape),
        make_row(
            Role.OPTIMIZED,
            "executorch",
            wrong=3,
            p50=1.93,
            outside=("aten.mean.dim",) * 2 + ("aten.mul.Tensor",),
            **shape,
        ),
        make_row(
            Role.BASELINE, "onnx", wrong=2, size_bytes=6_310_912, p50=2.02, suffix=".onnx", delegated=None, **shape
        ),
        make_row(
            Role.OPTIMIZED, "onnx", wrong=3, size_bytes=2_264_000, p50=2.61, suffix=".onnx", delegated=None, **shape
        ),
    )


def make_passes(epochs: int = 8) -> tuple[PassRecord, ...]:
    steps = tuple(float(epoch) for epoch in range(1, epochs + 1))
    falling = tuple(0.06 + 2.1 * math.exp(-0.7 * step) for step in steps)
    return (
        PassRecord(
            "train",
            {"epochs": epochs, "best_epoch": 7, "validation_accuracy": 0.9926, "batch_norm_layers_reestimated": 34},
            (
                Curve("train", steps, falling, y_label="loss"),
                Curve("validation", steps, tuple(y + 0.05 for y in falling), y_label="loss"),
                Curve("validation", steps, tuple(1 - 0.4 * y for y in falling), y_label="accuracy"),
                Curve(
                    "learning rate",
                    steps,
                    tuple(3e-3 * math.sin(math.pi * s / 9) for s in steps),
                    y_label="learning rate",
                ),
            ),
        ),
        PassRecord(
            "qat",
            {
                "quantizer": "xnnpack",
                "layers_quantized": 54,
                "batch_norms_frozen": 34,
                "observers_frozen": 163,
                "best_epoch": 2,
            },
            (
                Curve("train", (1.0, 2.0, 3.0), (0.21, 0.13, 0.11), y_label="loss"),
                Curve("converted", (1.0, 2.0, 3.0), (0.978, 0.9889, 0.9889), y_label="accuracy"),
            ),
            ("the last epoch brought nothing; fewer would do",),
        ),
    )


def make_samples(rows: Sequence[Row], classes: Sequence[str] = DIGITS, count: int = 12) -> tuple[Sample, ...]:
    """Every fifth image is wrong in the optimized files."""
    samples = []
    for index in range(count):
        label = index % len(classes)
        other = (label + 3) % len(classes)
        predictions = {
            row.file: SamplePrediction(other, 0.57)
            if row.role is Role.OPTIMIZED and index % 5 == 4
            else SamplePrediction(label, 0.9993 - 0.013 * index)
            for row in rows
            if not row.error
        }
        samples.append(Sample(index * 7, label, predictions))
    return tuple(samples)


def make_images(samples: Sequence[Sample], side: int = 64) -> dict[int, np.ndarray]:
    """A bright bar on a dark ground, turned a little further for each class: uint8 (side, side, 3)."""
    grid_y, grid_x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    images = {}
    for sample in samples:
        angle = math.pi * sample.label / 10
        distance = np.abs(grid_x * math.sin(angle) - grid_y * math.cos(angle))
        ink = np.clip(255 * np.exp(-20 * distance**2), 0, 255).astype(np.uint8)
        images[sample.index] = np.stack([ink, ink, ink], axis=-1)
    return images


def make_report(
    rows: tuple[Row, ...] | None = None,
    *,
    classes: tuple[str, ...] = DIGITS,
    gates: Gates | None = None,
    smoke: bool = False,
    passes: tuple[PassRecord, ...] | None = None,
) -> Report:
    rows = four_rows(classes) if rows is None else rows
    passes = make_passes() if passes is None else passes
    programs = (
        ProgramScore(
            Role.BASELINE, "float32", 268 / 270, wilson_interval(268, 270), macs=4_870_000, parameters=1_528_106
        ),
        ProgramScore(
            Role.OPTIMIZED, "int8", 267 / 270, wilson_interval(267, 270), macs=4_870_000, parameters=1_515_994
        ),
    )
    gates = gates or Gates(accuracy_drop=0.02, agreement=0.99, size_ratio=3.5)
    return Report(
        edgeopt="0.1.0",
        recipe=RecipeSummary(
            name="mobilenetv3-qat-android",
            description="MobileNetV3-small on handwritten digits, quantization-aware trained, for ExecuTorch and ONNX Runtime.",
            seed=17,
            file="recipes/mobilenetv3_qat_android.toml",
            resolved={"seed": 17},
        ),
        dataset=DatasetSummary(
            name="digits",
            classes=classes,
            splits={"train": 1132, "calibration": 126, "validation": 269, "test": 270},
            fingerprint="5f2b1c" * 8,
            preprocessing=PREPROCESSING,
        ),
        environment=Environment(
            python="3.11.9",
            platform="Linux 6.1",
            machine="x86_64",
            processor="a processor with 2 cores",
            cores=2,
            memory_bytes=24_000_000_000,
            versions={"executorch": "1.5.1", "onnxruntime": "1.32.0", "torch": "2.13.0", "torchao": "0.18.0"},
        ),
        rows=rows,
        programs=programs,
        passes=passes,
        gates=() if smoke else judge(gates, rows, programs),
        verdicts=verdicts(rows, passes, smoke=smoke),
        samples=make_samples(rows, classes),
        stages=(
            StageRecord("data", "data: digits", 0.8),
            StageRecord("pass-0-train", "train", 38.2),
            StageRecord("pass-1-qat", "qat", 31.7),
            StageRecord("export-executorch-optimized", "export: executorch optimized", 6.4),
            StageRecord("measure", "latency", 5.1),
        ),
        smoke=smoke,
        finished="2026-03-02T14:05:00+00:00",
    )


def failed(
    row: Row, error: str = "the runtime has no kernel for aten.foo\nsecond line", log: str = "logs/x.log"
) -> Row:
    """The row of a file that could not be made: no figures."""
    return Row(
        runtime=row.runtime,
        export=row.export,
        file=row.file,
        precision=row.precision,
        role=row.role,
        error=error,
        log=log,
    )
