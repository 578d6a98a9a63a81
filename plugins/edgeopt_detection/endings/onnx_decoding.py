"""From raw heads to placed boxes and their scores in ONNX's own operators, in the order of steps of
`parts/box_decoder.py`: what files do before overlapping boxes are removed, whatever removes them.
"""

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

PREFIX = "ending/"
"""How the names of all values in a tail begin, but for its outputs."""

_OPSET = 17


class TailGraph:
    """Nodes and constants as they come."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, kind: str, *inputs: str, to: str = "", **attributes: Any) -> str:
        """The output of a new operator."""
        name = f"{PREFIX}{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [to or name], name=name, **attributes))
        return to or name

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """The name of a constant; equal ones are one."""
        made = numpy_helper.from_array(np.asarray(values, dtype))
        for each in self.constants:
            if (each.raw_data, each.data_type, each.dims) == (made.raw_data, made.data_type, made.dims):
                return str(each.name)
        made.name = f"{PREFIX}constant_{len(self.constants)}"
        self.constants.append(made)
        return str(made.name)

    def cast(self, value: str, dtype: int) -> str:
        """A value in another type."""
        name = f"{PREFIX}Cast_{len(self.nodes)}"
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
        largest, places = (f"{PREFIX}{name}_{len(self.nodes)}" for name in ("largest", "places"))
        node = helper.make_node("TopK", [values, self.integers(kept)], [largest, places], name=largest, axis=axis)
        self.nodes.append(node)
        return self.add("ScatterElements", self.add("Sub", values, values), places, largest, axis=axis)

    def tail(self, decoding: BoxDecoding, domains: Sequence[str] = ()) -> OnnxTail:
        """All of it as a graph that takes raw heads, float32, and gives `FOUND`, for any number of images; `domains`
        are those of operators that are not ONNX's own.
        """
        rows = rows_of(decoding)
        widths = zip(heads_of(decoding), (decoding.columns, 4, 1), strict=False)
        given = [(name, ("batch", decoding.anchors, width)) for name, width in widths]
        returned = zip(FOUND, (("batch", rows, 4), ("batch", rows), ("batch", rows), ("batch",)), strict=True)
        made = helper.make_graph(
            self.nodes,
            "boxes",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in given],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in returned],
            self.constants,
        )
        opsets = [helper.make_opsetid("", _OPSET), *(helper.make_opsetid(domain, 1) for domain in domains)]
        model = helper.make_model(made, opset_imports=opsets, ir_version=8)
        onnx.checker.check_model(model)
        return OnnxTail(model.SerializeToString(deterministic=True))


def heads_of(decoding: BoxDecoding) -> tuple[str, ...]:
    """What a tail calls the raw heads that it takes."""
    return tuple(f"{PREFIX}{name}" for name in decoding.outputs)


def scores_of(graph: TailGraph, decoding: BoxDecoding, computed_in: int) -> str:
    """Float32 (n, anchors, classes), without the background, computed in a type of ONNX."""
    heads = heads_of(decoding)
    logits = graph.cast(heads[0], computed_in)
    if decoding.scores == "softmax":
        shares = graph.add("Softmax", logits, axis=2)
        reported = [column for column in range(decoding.columns) if column != decoding.background]
        scores = graph.add("Gather", shares, graph.integers(*reported), axis=2)
    else:
        scores = graph.add("Sigmoid", logits)
        if decoding.scores == "sigmoid-centerness":
            centerness = graph.add("Sigmoid", graph.cast(heads[2], computed_in))
            scores = graph.add("Sqrt", graph.add("Mul", scores, centerness))
    return graph.cast(scores, TensorProto.FLOAT)


def corners_of(graph: TailGraph, decoding: BoxDecoding) -> str:
    """Float32 (n, anchors, 4) as x1, y1, x2, y2 in px, cut at the borders of the input."""
    numbers = heads_of(decoding)[1]
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


def usable(graph: TailGraph, scores: str, decoding: BoxDecoding) -> str:
    """The scores that may be reported, 0 in place of others: too low, no number, or of a box that is none."""
    wrong = graph.cast(graph.add("IsNaN", heads_of(decoding)[1]), TensorProto.FLOAT)
    whole = graph.add("Equal", graph.add("ReduceSum", wrong, graph.integers(2), keepdims=1), graph.constant(0.0))
    good = graph.add("And", graph.add("Greater", scores, graph.constant(decoding.score_threshold)), whole)
    return graph.add("Where", good, scores, graph.constant(0.0))


def in_shares(graph: TailGraph, corners: str, decoding: BoxDecoding) -> str:
    """Corners in px as files give them: y1, x1, y2, x2 in shares of the input's height and width."""
    y_first = graph.add("Gather", corners, graph.integers(1, 0, 3, 2), axis=2)
    return graph.add("Div", y_first, graph.constant([decoding.height, decoding.width] * 2))


def without_reversed(graph: TailGraph, corners: str, decoding: BoxDecoding) -> str:
    """Corners in which a box whose sides change places, as distances below 0 give it, has no area: operators that
    remove overlaps would turn it round.
    """
    if decoding.boxes == "offsets":
        return corners
    low, high = graph.part(corners, 2, 0, 2), graph.part(corners, 2, 2, 4)
    return graph.add("Concat", low, graph.add("Max", low, high), axis=2)
