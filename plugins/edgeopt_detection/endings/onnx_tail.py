"""From raw heads to boxes in ONNX's own operators, in the order of steps of `parts/box_decoder.py`."""

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


def onnx_tail(decoding: BoxDecoding) -> OnnxTail:
    """A graph that takes raw heads, float32, and gives `FOUND`, for any number of images.

    Scores are computed in 64 bits and rounded to 32, as the reference does it, so that equal ones stay equal and their
    order its own; boxes are computed in 32 bits.
    """
    graph = TailGraph()
    corners = corners_of(graph, decoding)
    scores = _candidates(graph, usable(graph, scores_of(graph, decoding, TensorProto.DOUBLE), decoding), decoding)
    kept = _kept(graph, corners, scores, decoding)
    _outputs(graph, corners, kept, decoding)
    return graph.tail(decoding)


def _candidates(graph: TailGraph, scores: str, decoding: BoxDecoding) -> str:
    """Float32 (n, classes, anchors): the scores of the best of each class, or of each level, and 0."""
    most = decoding.candidates.most
    if decoding.candidates.per == "class":
        by_class = graph.add("Transpose", scores, perm=[0, 2, 1])
        return by_class if most >= decoding.anchors else graph.scattered(by_class, most, 2)
    parts, first = [], 0
    for level in decoding.levels:
        part = graph.part(scores, 1, first, first + level.anchors)
        if most < level.anchors * decoding.classes:
            flat = graph.scattered(graph.add("Reshape", part, graph.integers(0, -1)), most, 1)
            part = graph.add("Reshape", flat, graph.integers(0, level.anchors, decoding.classes))
        parts.append(part)
        first += level.anchors
    return graph.add("Transpose", graph.add("Concat", *parts, axis=1), perm=[0, 2, 1])


def _kept(graph: TailGraph, corners: str, scores: str, decoding: BoxDecoding) -> str:
    """The scores of boxes that overlap no better one of their class, and 0."""
    corners = without_reversed(graph, corners, decoding)
    limits = graph.constant(decoding.iou_threshold), graph.constant(0.0)
    chosen = graph.add("NonMaxSuppression", corners, scores, graph.integers(decoding.most), *limits)
    values = graph.add("GatherND", scores, chosen)
    return graph.add("ScatterND", graph.add("Sub", scores, scores), chosen, values)


def _outputs(graph: TailGraph, corners: str, kept: str, decoding: BoxDecoding) -> None:
    """The best of all classes, in the order of the reference: of equals first those of the first class, or, where
    levels choose candidates, of the first anchor.
    """
    by_class = decoding.candidates.per == "class"
    flat = graph.add(
        "Reshape", kept if by_class else graph.add("Transpose", kept, perm=[0, 2, 1]), graph.integers(0, -1)
    )
    best, places = f"{PREFIX}best", f"{PREFIX}best_places"
    graph.nodes.append(
        helper.make_node("TopK", [flat, graph.integers(rows_of(decoding))], [best, places], name=best, axis=1)
    )
    inner = graph.constant(decoding.anchors if by_class else decoding.classes, np.int64)
    outer, rest = graph.add("Div", places, inner), graph.add("Mod", places, inner)
    labels, anchors = (outer, rest) if by_class else (rest, outer)
    found = graph.add("Greater", best, graph.constant(0.0))
    shares = in_shares(graph, corners, decoding)
    wide = graph.add("Tile", graph.add("Unsqueeze", anchors, graph.integers(2)), graph.integers(1, 1, 4))
    picked = graph.add("GatherElements", shares, wide, axis=1)
    nothing = graph.constant(0.0)
    boxes, classes, scores, count = FOUND
    graph.add("Where", graph.add("Unsqueeze", found, graph.integers(2)), picked, nothing, to=boxes)
    graph.add("Where", found, graph.cast(labels, TensorProto.FLOAT), nothing, to=classes)
    graph.add("Identity", best, to=scores)
    graph.add("ReduceSum", graph.cast(found, TensorProto.FLOAT), graph.integers(1), keepdims=0, to=count)
