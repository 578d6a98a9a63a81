"""From raw heads to boxes in ONNX's own operators, in the order of steps of `parts/box_decoder.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeopt.plugins import OnnxTail
from edgeopt_detection.decoding.description import BoxDecoding
from edgeopt_detection.decoding.reference import anchor_corners
from edgeopt_detection.endings.outputs import FOUND, rows_of

_OPSET = 17
_PREFIX = "ending/"


def onnx_tail(decoding: BoxDecoding) -> OnnxTail:
    """A graph that takes raw heads, float32, and gives `FOUND`, for any number of images.

    Scores are computed in 64 bits and rounded to 32, as the reference does it, so that equal ones stay equal and their
    order its own; boxes are computed in 32 bits.
    """
    graph = _Graph()
    heads = [f"{_PREFIX}{name}" for name in decoding.outputs]
    corners = _corners(graph, heads[1], decoding)
    scores = _candidates(graph, _usable(graph, _scores(graph, heads, decoding), heads[1], decoding), decoding)
    kept = _kept(graph, corners, scores, decoding)
    _outputs(graph, corners, kept, decoding)
    widths = (decoding.columns, 4, 1)
    rows = rows_of(decoding)
    given = [(name, ("batch", decoding.anchors, width)) for name, width in zip(heads, widths, strict=False)]
    shapes = (("batch", rows, 4), ("batch", rows), ("batch", rows), ("batch",))
    made = helper.make_graph(
        graph.nodes,
        "boxes",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in given],
        [helper.make_tensor_value_info(*each) for each in zip(FOUND, [TensorProto.FLOAT] * 4, shapes, strict=True)],
        graph.constants,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
    onnx.checker.check_model(model)
    return OnnxTail(model.SerializeToString(deterministic=True))


class _Graph:
    """Nodes and constants as they come."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, kind: str, *inputs: str, to: str = "", **attributes: Any) -> str:
        """The output of a new operator."""
        name = f"{_PREFIX}{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [to or name], name=name, **attributes))
        return to or name

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """The name of a constant; equal ones are one."""
        made = numpy_helper.from_array(np.asarray(values, dtype))
        for each in self.constants:
            if (each.raw_data, each.data_type, each.dims) == (made.raw_data, made.data_type, made.dims):
                return str(each.name)
        made.name = f"{_PREFIX}constant_{len(self.constants)}"
        self.constants.append(made)
        return str(made.name)

    def cast(self, value: str, dtype: int) -> str:
        """A value in another type."""
        name = f"{_PREFIX}Cast_{len(self.nodes)}"
        self.nodes.append(helper.make_node("Cast", [value], [name], name=name, to=dtype))
        return name

    def integers(self, *values: int) -> str:
        """The name of a constant of one axis, int64."""
        return self.constant(values, np.int64)

    def part(self, value: str, axis: int, start: int, end: int) -> str:
        """Places `start` to `end` of an axis."""
        return self.add("Slice", value, self.integers(start), self.integers(end), self.integers(axis))

    def scattered(self, values: str, kept: int, axis: int) -> str:
        """The largest `kept` values along an axis in their places, of equals the first; 0 in all others."""
        largest, places = (f"{_PREFIX}{name}_{len(self.nodes)}" for name in ("largest", "places"))
        node = helper.make_node("TopK", [values, self.integers(kept)], [largest, places], name=largest, axis=axis)
        self.nodes.append(node)
        return self.add("ScatterElements", self.add("Sub", values, values), places, largest, axis=axis)


def _scores(graph: _Graph, heads: Sequence[str], decoding: BoxDecoding) -> str:
    """Float32 (n, anchors, classes), without the background."""
    logits = graph.cast(heads[0], TensorProto.DOUBLE)
    if decoding.scores == "softmax":
        shares = graph.add("Softmax", logits, axis=2)
        reported = [column for column in range(decoding.columns) if column != decoding.background]
        scores = graph.add("Gather", shares, graph.integers(*reported), axis=2)
    else:
        scores = graph.add("Sigmoid", logits)
        if decoding.scores == "sigmoid-centerness":
            centerness = graph.add("Sigmoid", graph.cast(heads[2], TensorProto.DOUBLE))
            scores = graph.add("Sqrt", graph.add("Mul", scores, centerness))
    return graph.cast(scores, TensorProto.FLOAT)


def _corners(graph: _Graph, numbers: str, decoding: BoxDecoding) -> str:
    """Float32 (n, anchors, 4) as x1, y1, x2, y2 in px, cut at the borders of the input."""
    anchors = anchor_corners(decoding)
    sizes = graph.constant(anchors[:, 2:] - anchors[:, :2])
    middles = graph.constant((anchors[:, :2] + anchors[:, 2:]) / 2)
    if decoding.boxes == "offsets":
        moved = graph.add("Div", numbers, graph.constant(decoding.weights))
        centres = graph.add("Add", graph.add("Mul", graph.part(moved, 2, 0, 2), sizes), middles)
        scales = graph.add("Exp", graph.add("Min", graph.part(moved, 2, 2, 4), graph.constant(decoding.scale_limit)))
        halves = graph.add("Mul", graph.add("Mul", scales, sizes), graph.constant(0.5))
        low, high = graph.add("Sub", centres, halves), graph.add("Add", centres, halves)
    else:
        low = graph.add("Sub", middles, graph.add("Mul", graph.part(numbers, 2, 0, 2), sizes))
        high = graph.add("Add", middles, graph.add("Mul", graph.part(numbers, 2, 2, 4), sizes))
    corners = graph.add("Max", graph.add("Concat", low, high, axis=2), graph.constant(0.0))
    return graph.add("Min", corners, graph.constant([decoding.width, decoding.height] * 2))


def _usable(graph: _Graph, scores: str, numbers: str, decoding: BoxDecoding) -> str:
    """The scores that may be reported, 0 in place of others: too low, no number, or of a box that is none."""
    wrong = graph.cast(graph.add("IsNaN", numbers), TensorProto.FLOAT)
    whole = graph.add("Equal", graph.add("ReduceSum", wrong, graph.integers(2), keepdims=1), graph.constant(0.0))
    good = graph.add("And", graph.add("Greater", scores, graph.constant(decoding.score_threshold)), whole)
    return graph.add("Where", good, scores, graph.constant(0.0))


def _candidates(graph: _Graph, scores: str, decoding: BoxDecoding) -> str:
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


def _kept(graph: _Graph, corners: str, scores: str, decoding: BoxDecoding) -> str:
    """The scores of boxes that overlap no better one of their class, and 0."""
    if decoding.boxes == "distances":  # of a box whose sides change places the operator makes one that has an area
        low, high = graph.part(corners, 2, 0, 2), graph.part(corners, 2, 2, 4)
        corners = graph.add("Concat", low, graph.add("Max", low, high), axis=2)
    limits = graph.constant(decoding.iou_threshold), graph.constant(0.0)
    chosen = graph.add("NonMaxSuppression", corners, scores, graph.integers(decoding.most), *limits)
    values = graph.add("GatherND", scores, chosen)
    return graph.add("ScatterND", graph.add("Sub", scores, scores), chosen, values)


def _outputs(graph: _Graph, corners: str, kept: str, decoding: BoxDecoding) -> None:
    """The best of all classes, in the order of the reference: of equals first those of the first class, or, where
    levels choose candidates, of the first anchor.
    """
    by_class = decoding.candidates.per == "class"
    flat = graph.add(
        "Reshape", kept if by_class else graph.add("Transpose", kept, perm=[0, 2, 1]), graph.integers(0, -1)
    )
    best, places = f"{_PREFIX}best", f"{_PREFIX}best_places"
    graph.nodes.append(
        helper.make_node("TopK", [flat, graph.integers(rows_of(decoding))], [best, places], name=best, axis=1)
    )
    inner = graph.constant(decoding.anchors if by_class else decoding.classes, np.int64)
    outer, rest = graph.add("Div", places, inner), graph.add("Mod", places, inner)
    labels, anchors = (outer, rest) if by_class else (rest, outer)
    found = graph.add("Greater", best, graph.constant(0.0))
    y_first = graph.add("Gather", corners, graph.integers(1, 0, 3, 2), axis=2)
    shares = graph.add("Div", y_first, graph.constant([decoding.height, decoding.width] * 2))
    wide = graph.add("Tile", graph.add("Unsqueeze", anchors, graph.integers(2)), graph.integers(1, 1, 4))
    picked = graph.add("GatherElements", shares, wide, axis=1)
    nothing = graph.constant(0.0)
    boxes, classes, scores, count = FOUND
    graph.add("Where", graph.add("Unsqueeze", found, graph.integers(2)), picked, nothing, to=boxes)
    graph.add("Where", found, graph.cast(labels, TensorProto.FLOAT), nothing, to=classes)
    graph.add("Identity", best, to=scores)
    graph.add("ReduceSum", graph.cast(found, TensorProto.FLOAT), graph.integers(1), keepdims=0, to=count)
