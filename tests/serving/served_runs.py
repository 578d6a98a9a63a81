"""Folders of runs, made by hand in an instant."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from edgeopt.preprocessing import Preprocessing
from edgeopt.report.samples import keep_samples
from edgeopt.report.schema import (
    DatasetSummary,
    Environment,
    RecipeSummary,
    Report,
    Row,
    Sample,
    SamplePrediction,
)
from edgeopt.types import Card, Role, TensorInfo

CLASSES = tuple(f"c{number}" for number in range(100))
SIDE = 8
PREPROCESSING = Preprocessing(SIDE, SIDE, SIDE, mean=(0, 0, 0), std=(1, 1, 1))
PLUGIN = Path(__file__).with_name("colours_plugin.py")


def image(red: int, green: int = 0, blue: int = 0, side: int = SIDE, kind: str = "PNG") -> bytes:
    """An image file of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (red, green, blue)).save(file, kind)
    return file.getvalue()


def make_run(
    folder: Path,
    files: Mapping[str, str | bytes],
    *,
    precision: Mapping[str, str] | None = None,
    size: int = SIDE,
    opened_by: str = "onnx",
    **row: object,
) -> Path:
    """A run whose exports hold `files`: words for the exporter of colours, or the bytes of an ONNX file, which the
    exporter `opened_by` opens.
    """
    preprocessing = Preprocessing(size, size, size, mean=(0, 0, 0), std=(1, 1, 1))
    rows, exports = [], []
    for export, content in files.items():
        use, suffix = ("colours", ".txt") if isinstance(content, str) else (opened_by, ".onnx")
        path = folder / export / "optimized" / f"model{suffix}"
        path.parent.mkdir(parents=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        form = (precision or {}).get(export, "int8")
        given = TensorInfo("input", "float32", ("batch", 3, size, size), "NCHW")
        card = Card(CLASSES, preprocessing.to_json(), use, form, Role.OPTIMIZED, {}, {}, given)
        path.with_name("card.json").write_text(card.to_json())
        name = path.relative_to(folder).as_posix()
        more = {"test_accuracy": 0.9, "size_bytes": path.stat().st_size, **row}
        rows.append(Row(runtime=use, export=export, file=name, precision=form, role=Role.OPTIMIZED, **more))
        exports.append({"use": use, "name": export})
    predictions = {each.file: SamplePrediction(40, 1.0) for each in rows}
    report = Report(
        edgeopt="0",
        recipe=RecipeSummary(name=folder.name, seed=0, resolved={"exports": exports}),
        dataset=DatasetSummary(name="colours", classes=CLASSES, splits={}, fingerprint="", preprocessing={}),
        environment=Environment(python="", platform="", machine="", processor="", cores=1),
        rows=tuple(rows),
        samples=(Sample(3, 40, predictions), Sample(5, 41, predictions)),
    )
    (folder / "report.json").write_text(report.to_json())
    keep_samples(
        {3: np.full((size, size, 3), (40, 0, 0), np.uint8), 5: np.full((size, size, 3), (42, 0, 0), np.uint8)}, folder
    )
    return folder


def red_network(size: int = SIDE) -> bytes:
    """An ONNX file that answers with the red of an image: of the logits 2·k·red - k², that of k = red is the largest."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    number = np.arange(100, dtype=np.float32)
    weight = np.zeros((3, size * size, 100), np.float32)
    weight[0] = 2 * number * 255 / size**2
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["input"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"]),
        ],
        "red",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ("batch", 3, size, size))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("batch", 100))],
        [numpy_helper.from_array(weight.reshape(-1, 100), "weight"), numpy_helper.from_array(-(number**2), "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()
