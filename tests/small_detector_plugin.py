"""The detector of `small_detector` as a model that recipes name, untrained: for tests of whole runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from edgeopt.plugins import ModelPlugin, ModelState, Options, TrainingData, hookimpl

sys.path.insert(0, str(Path(__file__).parent))  # of whatever process builds the model, or opens it again


class NoOptions(Options):
    pass


def build(options: NoOptions, data: TrainingData) -> ModelState:
    from small_detector import DECODING, detector_state

    state = detector_state()
    task = replace(state.task, shown_score=data.task.shown_score, decoding=DECODING)
    return replace(state, task=task, preprocessing=data.preprocessing, classes=data.classes)


@hookimpl
def edgeopt_models() -> Iterator[ModelPlugin]:
    yield ModelPlugin("small-detector", "Raw heads of two maps.", NoOptions, build=build, tasks=("detection",))
