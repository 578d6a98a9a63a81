"""From raw heads to boxes for TensorRT: ONNX's own operators, and its plugin EfficientNMS that removes overlaps.

The plugin takes scores from its threshold on and drops boxes that overlap from its threshold on, each class by itself.
Of scores that fall below the threshold it gives rows of their own where that is less than 0.007, with a score below 0.
Source: https://github.com/NVIDIA/TensorRT/tree/main/plugin/efficientNMSPlugin
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from edgeopt.plugins import OnnxTail
from edgeopt_detection.decoding.description import BoxDecoding
from edgeopt_detection.endings.onnx_decoding import (
    PREFIX,
    TailGraph,
    corners_of,
    in_shares,
    scores_of,
    usable,
    without_reversed,
)
from edgeopt_detection.endings.outputs import FOUND, rows_of

PLUGIN = "EfficientNMS_TRT"
_DOMAIN = "trt.plugins"  # TensorRT goes by the name alone, and ONNX's own domain knows no such operator


def tensorrt_tail(decoding: BoxDecoding) -> OnnxTail:
    """A graph that takes raw heads, float32, and gives `FOUND`, for any number of images.

    All is in 32 bits, which TensorRT computes everything in. What comes out of the plugin is in the form of files
    already, but for integers, and for rows of boxes that may not be reported.
    """
    graph = TailGraph()
    shares = in_shares(graph, without_reversed(graph, corners_of(graph, decoding), decoding), decoding)
    scores = usable(graph, scores_of(graph, decoding, TensorProto.FLOAT), decoding)
    _, placed, best, labels = _suppressed(graph, shares, scores, decoding)
    found, nothing = graph.add("Greater", best, graph.constant(0.0)), graph.constant(0.0)
    boxes, classes, reported, count = FOUND
    graph.add("Where", graph.add("Unsqueeze", found, graph.integers(2)), placed, nothing, to=boxes)
    graph.add("Where", found, graph.cast(labels, TensorProto.FLOAT), nothing, to=classes)
    graph.add("Where", found, best, nothing, to=reported)
    graph.add("ReduceSum", graph.cast(found, TensorProto.FLOAT), graph.integers(1), keepdims=0, to=count)
    return graph.tail(decoding, domains=[_DOMAIN])


def _suppressed(graph: TailGraph, boxes: str, scores: str, decoding: BoxDecoding) -> tuple[str, ...]:
    """What the plugin gives: how many, boxes, scores and classes, the best first."""
    limit = np.nextafter(np.float32(decoding.iou_threshold), np.float32(2))
    options = {
        "plugin_version": "1",
        "score_threshold": decoding.score_threshold,  # scores of it or less are 0 already
        "iou_threshold": float(max(limit, np.finfo(np.float32).tiny)),  # what follows 0 is no normal number
        "max_output_boxes": rows_of(decoding),
        "background_class": -1,
        "score_activation": 0,
        "class_agnostic": 0,
        "box_coding": 0,
    }
    names = ("num_detections", "detection_boxes", "detection_scores", "detection_classes")
    returned = tuple(f"{PREFIX}{name}" for name in names)
    graph.nodes.append(
        helper.make_node(PLUGIN, [boxes, scores], returned, name=f"{PREFIX}{PLUGIN}", domain=_DOMAIN, **options)
    )
    return returned
