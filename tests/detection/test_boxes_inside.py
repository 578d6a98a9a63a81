"""Files that end at boxes, opened in their runtimes: against the reference decoding, and what cannot end so."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from random_heads import BOX_DECODER_SCRIPT, LAST_BACKGROUND, SSD, random_heads
from small_detector import box_data
from torch import Tensor, nn

from edgeopt.errors import ExportError, RecipeError
from edgeopt.export.make import Artifact, make_artifact
from edgeopt.networks.capture import to_program
from edgeopt.plugins import ExporterPlugin, Form, ModelState, Role
from edgeopt.plugins.registry import load_registry
from edgeopt.preprocessing import Preprocessing
from edgeopt.progress import Silent
from edgeopt.recipe.lookup import resolve
from edgeopt.recipe.plan import make_plan
from edgeopt.recipe.read import read_recipe
from edgeopt.tasks.classification import Classification
from edgeopt.testing.values import ArraySplit
from edgeopt_detection.boxes import Detections
from edgeopt_detection.decoding.description import BoxDecoding, Candidates
from edgeopt_detection.decoding.reference import decode
from edgeopt_detection.endings.onnx_tail import onnx_tail
from edgeopt_detection.task import Detection

REGISTRY = load_registry()
DATA = box_data(8)


class Given(nn.Module):
    """Gives the heads that its image holds, number by number."""

    def __init__(self, decoding: BoxDecoding) -> None:
        super().__init__()
        self.anchors = decoding.anchors
        self.widths = (decoding.columns, 4, 1)[: len(decoding.outputs)]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        rows = images.flatten(1)[:, : self.anchors * sum(self.widths)].reshape(-1, self.anchors, sum(self.widths))
        return tuple(rows.split(self.widths, dim=2))


def image_of(heads: tuple[np.ndarray, ...], decoding: BoxDecoding) -> np.ndarray:
    """Images, float32 (n, 3, height, width), that hold heads."""
    rows = np.concatenate(heads, axis=2).reshape(len(heads[0]), -1)
    images = np.zeros((len(rows), 3 * decoding.height * decoding.width), np.float32)
    images[:, : rows.shape[1]] = rows
    return images.reshape(-1, 3, decoding.height, decoding.width)


def state_of(decoding: BoxDecoding) -> ModelState:
    size = (decoding.height, decoding.width)
    return ModelState(
        Given(decoding),
        Form.MODULE,
        Detection(decoding=decoding),
        ("disc", "square", "ring"),
        Preprocessing(size, size, size),
        output_names=decoding.outputs,
    )


def made(state: ModelState, exporter: str, folder: Path, **options: Any) -> Artifact:
    use = resolve(ExporterPlugin, exporter, {"ends": "boxes", **options}, REGISTRY)
    return make_artifact(
        use, state, folder, role=Role.BASELINE, recipe={}, calibration=DATA.calibration, progress=Silent(), seed=0
    )


def unlike(found: list[Detections], expected: list[Detections]) -> list[int]:
    """The images whose boxes are others, by a thousandth of a px, a class, a millionth of a score or their order."""
    return [
        image
        for image, (one, other) in enumerate(zip(found, expected, strict=True))
        if one.classes.tolist() != other.classes.tolist()
        or not np.allclose(one.corners, other.corners, rtol=0, atol=1e-3)
        or not np.allclose(one.scores, other.scores, rtol=0, atol=1e-6)
    ]


# ---- against the reference, in the runtimes themselves ---------------------------------------------------------------


@pytest.mark.parametrize("case", range(4))
def test_operators_of_onnx_find_the_boxes_of_the_reference(case: int) -> None:
    """Of a thousand random heads with ties, overlaps and numbers that are none: scores and order are those of the
    reference to the bit, for they are computed as it computes them; corners of 32 bits differ by their last bits.
    """
    decoding, heads = random_heads()[case]
    session = onnxruntime.InferenceSession(onnx_tail(decoding).model, providers=["CPUExecutionProvider"])
    outputs = session.run(None, dict(zip([each.name for each in session.get_inputs()], heads, strict=True)))
    found, expected = Detection(decoding=decoding).found(tuple(outputs)), decode(heads, decoding)
    assert not unlike(found, expected)
    assert all(np.array_equal(one.scores, other.scores) for one, other in zip(found, expected, strict=True))


def test_a_file_of_openvino_finds_the_boxes_of_the_reference(tmp_path: Path) -> None:
    """The operators of ONNX in another runtime, whose numbers differ in their last bits: so equally good boxes, which
    every second image has, come in another order, and of the others one has two boxes that overlap by the limit.
    """
    decoding, heads = random_heads()[0]
    state = state_of(decoding)
    blank = ArraySplit(np.zeros((2, *state.preprocessing.shape), np.uint8), np.zeros(2, np.int64))
    artifact = made(to_program(state, blank), "openvino", tmp_path)
    with REGISTRY.get(ExporterPlugin, "openvino").opened(artifact.path, 1) as predictor:
        outputs = predictor.predict(image_of(heads, decoding))
    found, expected = state.task.found(outputs), decode(heads, decoding)
    assert len(unlike(found[15::2], expected[15::2])) <= 1
    for one, other in zip(found[16::2], expected[16::2], strict=True):
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)


def test_the_operator_of_tflite_finds_the_boxes_of_the_reference(tmp_path: Path) -> None:
    """Of FCOS, whose numbers the operator's own decoding does not know, where all boxes above the threshold are looked
    at. Of equally good ones of two classes it leaves open which comes first (it sorts by `std::partial_sort`), and
    scores of 32 bits may tell equals apart: so a few of the images with rounded logits have other boxes.
    """
    decoding, (logits, boxes, centerness) = random_heads()[2]
    decoding = decoding.model_copy(update={"candidates": Candidates(per="level", most=1000)})
    heads = (logits, np.abs(boxes), centerness)  # as a network gives them; a box of the reverse has no area
    state = state_of(decoding)
    blank = ArraySplit(np.zeros((2, *state.preprocessing.shape), np.uint8), np.zeros(2, np.int64))
    artifact = made(to_program(state, blank), "tflite", tmp_path)
    with REGISTRY.get(ExporterPlugin, "tflite").opened(artifact.path, 1) as predictor:
        outputs = predictor.predict(image_of(heads, decoding))
    found, expected = state.task.found(outputs), decode(heads, decoding)
    assert len(unlike(found, expected)) <= 5


# ---- what reads them elsewhere, and what is refused ------------------------------------------------------------------


def test_javascript_reads_the_same_boxes(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node")
    rows = np.zeros((1, 20, 4), np.float32), np.zeros((1, 20), np.float32), np.zeros((1, 20), np.float32)
    rows[0][0, :3] = [[0.1, 0.2, 0.55, 1.25], [-0.3, 0.1, 0.7, 0.9], [np.nan, 0, 1, 1]]
    rows[1][0, :3], rows[2][0, :3] = [2, 0, 1], [0.9, 0.61, 0.5]
    outputs = (*rows, np.float32([3]))
    (tmp_path / "decoding.mjs").write_text(BOX_DECODER_SCRIPT.read_text())
    numbers = json.dumps([[None if np.isnan(one) else float(one) for one in each.ravel()] for each in outputs])
    script = f"""
        import {{ BoxDecoder }} from "./decoding.mjs";
        const outputs = {numbers}.map((each) => Float32Array.from(each, (one) => one ?? NaN));
        console.log(JSON.stringify(new BoxDecoder({json.dumps(SSD.to_json())}).decode(...outputs)));
    """
    (tmp_path / "read.mjs").write_text(script)
    told = subprocess.run([node, tmp_path / "read.mjs"], check=True, capture_output=True, text=True).stdout
    (found,) = Detection(decoding=SSD).found(outputs)
    assert len(found) == 2
    for box, corners, label, score in zip(
        json.loads(told), found.corners.tolist(), found.classes.tolist(), found.scores.tolist(), strict=True
    ):
        assert [box["x1"], box["y1"], box["x2"], box["y2"], box["label"], box["score"]] == [*corners, label, score]


RECIPE = """
schema = 1
name = "boxes"

[dataset]
use = "shapes-boxes"
image_size = 160

[model]
use = "torchvision-detector"

[[exports]]
use = "{exporter}"
{option}
"""


@pytest.mark.parametrize(
    ("exporter", "option", "message"),
    [
        ("executorch", 'ends = "boxes"', "a file of exporter 'executorch' cannot end at \"boxes\": it takes nothing"),
        ("tensorrt-rtx", 'ends = "boxes"', "exporter 'tensorrt-rtx' cannot end at \"boxes\": it takes nothing"),
        ("onnx", 'ends = "classes"', 'files of the task detection do not end at "classes"'),
        ("onnx", 'nms = "inside"', "unknown key 'exports.0.nms'"),
    ],
)
def test_what_cannot_end_at_boxes_is_said_at_its_line(exporter: str, option: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(exporter=exporter, option=option))
    with pytest.raises(RecipeError) as caught:
        make_plan(read_recipe(path), REGISTRY)
    (problem,) = caught.value.problems
    assert message in problem.message
    assert problem.location is not None and problem.location.line == 1 + path.read_text().splitlines().index(option)
    assert "ends" in problem.hint


def test_other_files_are_refused_when_they_are_made(tmp_path: Path) -> None:
    """What a recipe's check cannot know: a source of a conversion, and what only the network says."""
    labels = dataclasses.replace(state_of(SSD), task=Classification())
    with pytest.raises(ExportError, match='files of the task classification do not end at "boxes"'):
        made(labels, "onnx", tmp_path)
    with pytest.raises(ExportError, match="takes no overlap of 0"):
        made(state_of(LAST_BACKGROUND), "tflite", tmp_path)
