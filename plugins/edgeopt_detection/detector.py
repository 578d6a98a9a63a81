"""A detector as the model of a run: its network ends at raw heads, and its task knows how these become boxes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn

from edgeopt.networks.checkpoints import Loaded, load_state, read_checkpoint
from edgeopt.networks.heads import float_state, set_batch_norm_momentum
from edgeopt.plugins import Json, ModelState, TrainingData
from edgeopt_detection.networks.build import build_detector
from edgeopt_detection.networks.raw_heads import split_detector
from edgeopt_detection.task import Detection
from edgeopt_torchvision.compat import import_torchvision
from edgeopt_torchvision.published import published_state

if TYPE_CHECKING:
    from edgeopt_detection.options import DetectorOptions


def build(options: DetectorOptions, data: TrainingData) -> ModelState:
    """A float network for the classes of `data`, drawn from torch's seeded generator, and the task that decodes it.

    Raises `TypeError` for data of another task, and what loading weights raises.
    """
    if not isinstance(data.task, Detection):
        raise TypeError(f"a detector is built for data of boxes, not of {data.task.name}")
    anchors = options.anchors if options.arch == "ssdlite" else None
    detector = build_detector(options.arch, options.backbone, len(data.classes), anchors)
    loaded = None if options.weights == "none" else _load(detector, options)
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
    warnings: list[str] = []
    if loaded is not None:
        facts |= {"weights": options.weights, "loaded": str(loaded)}
        warnings = loaded.warnings
    state = float_state(network, data, facts, warnings)
    task = replace(data.task, decoding=decoding)
    imports = ("edgeopt_torchvision.loaded", "edgeopt_detection.networks.raw_heads")  # the careful import comes first
    untrained = () if loaded is None else loaded.untrained  # its names are those of the network, which is a part of it
    return replace(state, task=task, imports=imports, output_names=decoding.outputs, untrained=untrained)


def _load(detector: nn.Module, options: DetectorOptions) -> Loaded:
    """Fills a detector with the weights that the recipe names; heads for other classes stay as they were drawn.

    Raises `CheckpointError` where they cannot be had or do not fit.
    """
    if options.checkpoint is not None:
        state = read_checkpoint(options.checkpoint, detector.state_dict())
    else:
        assert options.published is not None  # the options have seen to it
        published = import_torchvision().models.get_model_weights(options.published)[options.weights]
        state = published_state(options.published, published)
    heads = {
        name
        for name, layer in detector.named_modules()
        if name.startswith("head.classification_head.") and isinstance(layer, nn.Conv2d) and layer.bias is not None
    }
    return load_state(detector, state, options.weights, heads)
