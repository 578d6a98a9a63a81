"""A detector as the model of a run: its network ends at raw heads, and its task knows how these become boxes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgeopt.networks.heads import float_state, set_batch_norm_momentum
from edgeopt.plugins import Json, ModelState, TrainingData
from edgeopt_detection.networks.build import build_detector
from edgeopt_detection.networks.raw_heads import split_detector
from edgeopt_detection.task import Detection

if TYPE_CHECKING:
    from edgeopt_detection.options import DetectorOptions


def build(options: DetectorOptions, data: TrainingData) -> ModelState:
    """A float network for the classes of `data`, drawn from torch's seeded generator, and the task that decodes it.

    Raises `TypeError` for data of another task.
    """
    if not isinstance(data.task, Detection):
        raise TypeError(f"a detector is built for data of boxes, not of {data.task.name}")
    detector = build_detector(options.arch, options.backbone, len(data.classes))
    height, width = data.preprocessing.size
    network, decoding = split_detector(detector, height, width)
    if options.score_threshold is not None:
        decoding = decoding.model_copy(update={"score_threshold": options.score_threshold})
    norms = set_batch_norm_momentum(network, options.batch_norm_momentum)
    facts: dict[str, Json] = {
        "arch": options.arch,
        "backbone": options.backbone,
        "anchors": decoding.anchors,
        "batch_norms": norms,
    }
    state = float_state(network, data, facts)
    task = replace(data.task, decoding=decoding)
    imports = ("edgeopt_detection.networks.raw_heads",)
    return replace(state, task=task, imports=imports, output_names=decoding.outputs)
