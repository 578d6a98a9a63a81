"""Folders of runs whose small files find patches of red, green and blue: boxes, masks and labels, made in an instant."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from edgeopt.plugins import Json
from edgeopt.preprocessing import Preprocessing
from edgeopt.report.schema import DatasetSummary, Environment, RecipeSummary, Report, Row
from edgeopt.types import Card, Role, TensorInfo
from edgeopt_detection.decoding.description import AnchorLevel, BoxDecoding, Candidates

COLOURS = ("red", "green", "blue")
GROUND = ("ground", *COLOURS)
HEIGHT, WIDTH, CELL = 32, 48, 8  # px
#: Boxes are the cells of a grid, moved by nothing; an image comes in whole, with grey above and below or beside it.
DECODING = BoxDecoding(
    height=HEIGHT,
    width=WIDTH,
    classes=3,
    levels=(
        AnchorLevel(
            rows=HEIGHT // CELL, columns=WIDTH // CELL, origin=(0, 0), step=(CELL, CELL), boxes=((0.0, 0.0, 8.0, 8.0),)
        ),
    ),
    scores="sigmoid",
    boxes="offsets",
    scale_limit=4.0,
    score_threshold=0.1,
    iou_threshold=0.5,
    candidates=Candidates(per="level", most=20),
    most=20,
)
DECISIONS: dict[str, dict[str, Json]] = {
    "detection": {"decoding": DECODING.to_json(), "shown_score": 0.4},
    "segmentation": {},
    "multi-label": {"thresholds": [0.5, 0.3, 0.9]},
    "warmth": {},
}
PREPROCESSING = Preprocessing(
    (HEIGHT, WIDTH),
    (HEIGHT, WIDTH),
    (HEIGHT, WIDTH),
    mean=(0, 0, 0),
    std=(1, 1, 1),
    fit="letterbox",
    background=(0, 0, 0),
)


def patches(width: int, height: int, *boxes: tuple[int, int, int, int, tuple[int, int, int]]) -> bytes:
    """A PNG, black, with boxes (left, top, right, bottom, colour)."""
    image = Image.new("RGB", (width, height))
    for *box, colour in boxes:
        image.paste(colour, tuple(box))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def network(task: str, blindness: float = 0.0) -> tuple[bytes, tuple[TensorInfo, ...]]:
    """An ONNX file of a task, and its outputs. `blindness` is by how much less it sees blue."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    sees = 12 * np.eye(3, dtype=np.float32)
    sees[2, 2] -= np.float32(blindness)
    cells = HEIGHT // CELL * (WIDTH // CELL)
    weights = {"see": sees[..., None, None], "bias": np.full(3, -6, np.float32)}
    made, shapes = {
        "detection": (
            [
                helper.make_node("AveragePool", ["input"], ["pooled"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
                helper.make_node("Conv", ["pooled", "see", "bias"], ["seen"]),
                helper.make_node("Transpose", ["seen"], ["last"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", ["last", "cells"], ["logits"]),
                helper.make_node("ReduceMean", ["logits"], ["mean"], axes=[2], keepdims=1),
                helper.make_node("Mul", ["mean", "nothing"], ["boxes"]),
            ],
            {"logits": (1, cells, 3), "boxes": (1, cells, 4)},
        ),
        "segmentation": (
            [helper.make_node("Conv", ["input", "see", "bias"], ["masks"])],
            {"masks": (1, 4, HEIGHT, WIDTH)},
        ),
        "multi-label": (
            [
                helper.make_node("GlobalMaxPool", ["input"], ["pooled"]),
                helper.make_node("Conv", ["pooled", "see", "bias"], ["seen"]),
                helper.make_node("Flatten", ["seen"], ["logits"]),
            ],
            {"logits": (1, 3)},
        ),
    }["multi-label" if task == "warmth" else task]
    if task == "segmentation":  # the ground wins where nothing is bright
        weights = {
            "see": np.concatenate([np.zeros((1, 3, 1, 1), np.float32), weights["see"]]),
            "bias": np.float32([6, 0, 0, 0]),
        }
    if task == "detection":
        weights |= {"cells": np.array([1, cells, 3], np.int64), "nothing": np.zeros((1, 1, 4), np.float32)}
    graph = helper.make_graph(
        made,
        task,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, (1, 3, HEIGHT, WIDTH))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    outputs = tuple(TensorInfo(name, "float32", shape, "") for name, shape in shapes.items())
    return model.SerializeToString(), outputs


def make_found_run(folder: Path, kind: str, *, opened_by: str = "onnx", **card: Json) -> Path:
    """A run of a kind of task with a float file and an int8 one, which sees blue no more."""
    rows, classes = [], GROUND if kind == "segmentation" else COLOURS
    for role, precision, blindness in ((Role.BASELINE, "float32", 0.0), (Role.OPTIMIZED, "int8", 9.0)):
        content, outputs = network(kind, blindness)
        path = folder / "onnx" / role / "model.onnx"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        given = TensorInfo("input", "float32", (1, 3, HEIGHT, WIDTH), "NCHW")
        values = {"task": kind, "decision": DECISIONS[kind], **card}
        made = Card(classes, PREPROCESSING.to_json(), opened_by, precision, role, {}, {}, given, outputs, **values)
        path.with_name("card.json").write_text(made.to_json())
        name = path.relative_to(folder).as_posix()
        rows.append(
            Row(runtime=opened_by, export="onnx", file=name, precision=precision, role=role, size_bytes=len(content))
        )
    report = Report(
        edgeopt="0",
        recipe=RecipeSummary(name=folder.name, seed=0, resolved={"exports": [{"use": opened_by, "name": "onnx"}]}),
        dataset=DatasetSummary(name="patches", classes=classes, splits={}, fingerprint="", preprocessing={}),
        environment=Environment(python="", platform="", machine="", processor="", cores=1),
        rows=tuple(rows),
    )
    (folder / "report.json").write_text(report.to_json())
    return folder
