"""The tasks that come with edgeopt itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from edgeopt.options import Options
from edgeopt.plugins.hookspecs import hookimpl
from edgeopt.plugins.task import TaskPlugin
from edgeopt.tasks.classification import FURTHER, Classification
from edgeopt.tasks.multilabel import MultiLabel
from edgeopt.tasks.numbers import Numbers
from edgeopt.tasks.scores import ACCURACY

_PARTS = Path(__file__).parents[1] / "tasks" / "parts"
_LANGUAGES = ("kotlin", "swift", "cpp", "python")


class ClassificationOptions(Options):
    """What is scored besides accuracy, and whether confidences are made to be believed."""

    scores: tuple[Literal["balanced_accuracy", "top5", "calibration_error"], ...] = Field(
        (),
        description="scores besides accuracy: the mean of the classes' recalls, the share of images whose class is "
        "among the five likeliest, and how far confidences are from the share that is right",
    )
    temperature: bool = Field(
        False,
        description="fit on validation a number by which logits are divided before their softmax, so that confidences "
        "can be believed, and write it into the card",
    )


def _classification(options: ClassificationOptions) -> Classification:
    kinds = (ACCURACY, *(FURTHER[name] for name in dict.fromkeys(options.scores)))
    return Classification(score_kinds=kinds, is_calibrated=options.temperature)


class NumbersOptions(Options):
    """There are none."""


class MultiLabelOptions(Options):
    """How labels are told."""

    thresholds: Literal["fitted", "half"] = Field(
        "fitted",
        description='from which confidence on a label is told: "fitted" takes for each the one with the best F1 on '
        'validation, and writes it into the card; "half" takes 0.5 for all',
    )


def _templates(name: str) -> tuple[Path, ...]:
    return tuple(_PARTS / f"{name}.{language}.j2" for language in _LANGUAGES)


@hookimpl
def edgeopt_tasks() -> Iterator[TaskPlugin]:
    """One label an image, several, and outputs whose meaning nobody knows."""
    yield TaskPlugin(
        "classification",
        "One of the data set's classes for each image: cross-entropy, top-1 accuracy.",
        ClassificationOptions,
        make=_classification,
        kotlin_files=(_PARTS / "ClassAnswering.kt",),
        line_templates=_templates("classes"),
        device_modules=("edgeopt.tasks.parts.classes",),
    )
    yield TaskPlugin(
        "multi-label",
        "Any number of the data set's classes for each image: sigmoid, mean average precision, F1.",
        MultiLabelOptions,
        make=lambda options: MultiLabel(is_calibrated=options.thresholds == "fitted"),
        kotlin_files=(_PARTS / "LabelAnswering.kt",),
        line_templates=_templates("labels"),
        page_files=(_PARTS / "labels.js",),
        device_modules=("edgeopt.tasks.parts.labels",),
    )
    yield TaskPlugin(
        "numbers",
        "Outputs whose meaning is not known, such as a converted detector's: close to what they should be, or not.",
        NumbersOptions,
        make=lambda _options: Numbers(),
        device_modules=("edgeopt.tasks.parts.ranges",),
    )
