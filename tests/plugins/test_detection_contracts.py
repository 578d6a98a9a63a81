"""The task `detection`, data sets with boxes, and detectors keep what is asked of tasks, data sets and models."""

# ruff: noqa: RUF012 - a contract is set up by the attributes of its class

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from random_heads import FCOS, SSD, heads_of

from edgeopt.data.cache import load_data
from edgeopt.networks.saved import save_state
from edgeopt.pipeline.report import _Answers
from edgeopt.recipe.lookup import resolve
from edgeopt.testing import DatasetContract, ModelContract, TaskContract, tiny_data
from edgeopt.types import targets_of
from edgeopt_detection.boxes import Boxes
from edgeopt_detection.task import Detection

TASK = Detection()
CLASSES = ("cat", "dog", "cow")


class BoxesContract(DatasetContract):
    """And boxes lie in the image that a network sees."""

    def test_a_run_can_use_it(self, raw, use, task, tmp_path):
        super().test_a_run_can_use_it(raw, use, task, tmp_path)
        train = load_data(tmp_path, use.options, lambda: raw).training.train
        for boxes in targets_of(train).boxes():
            assert task.wrong(boxes, len(raw.classes)) is None
            assert (boxes.corners <= use.options.image_size).all()


class TestShapesBoxes(BoxesContract):
    name = "shapes-boxes"
    options = {"image_size": 48, "drawn_size": 64, "images": 60}


class LocalBoxes(BoxesContract):
    """Forty images of 40 × 30 px with a box or two of two classes, in a format of files."""

    option = "path"

    @pytest.fixture(scope="class")
    @classmethod
    def use(cls, registry, tmp_path_factory):
        folder = tmp_path_factory.mktemp("boxes")
        random = np.random.default_rng(0)
        boxes = [((4, 5, 12, 9 + place % 9), place % 2) for place in range(40)]
        for place in range(40):
            path = folder / cls.images / f"{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path)
        cls.options = {"image_size": 32, **cls.write(folder, boxes)}
        return resolve(cls.kind, cls.name, cls.options, registry)

    def test_unknown_option_is_an_error(self, use, registry):  # `use` first: it completes the options
        super().test_unknown_option_is_an_error(registry)


class TestCoco(LocalBoxes):
    name, images = "coco", "images"

    @classmethod
    def write(cls, folder, boxes):
        rows = [
            {"id": place, "image_id": place, "category_id": 1 + label, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            for place, ((x1, y1, x2, y2), label) in enumerate(boxes)
        ]
        images = [{"id": place, "file_name": f"{place}.png", "width": 40, "height": 30} for place in range(40)]
        categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
        (folder / "train.json").write_text(
            json.dumps({"images": images, "annotations": rows, "categories": categories})
        )
        return {"train": {"annotations": str(folder / "train.json"), "images": str(folder / "images")}}


class TestYolo(LocalBoxes):
    name, images = "yolo", "images"

    @classmethod
    def write(cls, folder, boxes):
        (folder / "labels").mkdir()
        for place, ((x1, y1, x2, y2), label) in enumerate(boxes):
            shares = ((x1 + x2) / 80, (y1 + y2) / 60, (x2 - x1) / 40, (y2 - y1) / 30)
            (folder / "labels" / f"{place}.txt").write_text(f"{label} {' '.join(map(str, shares))}\n")
        (folder / "data.yaml").write_text("train: images\nnames: [cat, dog]\n")
        return {"path": str(folder)}


class TestVoc(LocalBoxes):
    name, images = "pascal-voc", "JPEGImages"

    @classmethod
    def write(cls, folder, boxes):
        (folder / "Annotations").mkdir()
        for place, ((x1, y1, x2, y2), label) in enumerate(boxes):
            sides = f"<xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
            (folder / "Annotations" / f"{place}.xml").write_text(
                f"<annotation><filename>{place}.png</filename><size><width>40</width><height>30</height></size>"
                f"<object><name>{('cat', 'dog')[label]}</name><bndbox>{sides}</bndbox></object></annotation>"
            )
        return {"path": str(folder)}


class TestHuggingFaceBoxes(LocalBoxes):
    name, images = "hugging-face-boxes", "train"

    @classmethod
    def write(cls, folder, boxes):
        rows = [
            {
                "file_name": f"{place}.png",
                "objects": {"bbox": [[x1, y1, x2 - x1, y2 - y1]], "category": [("cat", "dog")[label]]},
            }
            for place, ((x1, y1, x2, y2), label) in enumerate(boxes)
        ]
        (folder / "train" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
        return {"source": str(folder)}


class TestTfdsBoxes(LocalBoxes):
    name, images = "tfds-boxes", "images"

    @classmethod
    def write(cls, folder, boxes):
        pytest.importorskip("tensorflow_datasets")
        from tfds_files import OBJECTS, example, write_folder

        records = [
            example(
                {
                    "image": (folder / "images" / f"{place}.png").read_bytes(),
                    "objects/bbox": [y1 / 30, x1 / 40, y2 / 30, x2 / 40],
                    "objects/label": [label],
                    "objects/is_crowd": [0],
                }
            )
            for place, ((x1, y1, x2, y2), label) in enumerate(boxes)
        ]
        return {"path": str(write_folder(folder / "1.0.0", {"train": [records]}, label=OBJECTS, name="objects"))}


class TestTorchvisionDetector(ModelContract):
    name = "torchvision-detector"
    options = {"arch": "fcos", "backbone": "mobilenet_v3_small"}

    @pytest.fixture(scope="class")
    @classmethod
    def data(cls, task):
        return tiny_data(image_size=64, task=task)

    @pytest.fixture(scope="class")
    @classmethod
    def targets(cls):
        return [Boxes.of([[8, 8, 40, 40]], [1])] * 2

    def test_the_model_says_how_heads_become_boxes(self, state, task):
        assert task.decoding is None
        assert state.output_names == state.task.decoding.outputs

    def test_a_report_asks_the_task_that_the_programs_have(self, state, tmp_path):
        """The plan's task knows no anchors: a model says them."""
        save_state(state, tmp_path)
        plan = SimpleNamespace(exports=[SimpleNamespace(program_stage="program")], task=TASK)
        answers = _Answers(SimpleNamespace(plan=plan, folder=lambda _stage: tmp_path), {}, None)
        assert answers.task == state.task != TASK


class DetectionContract(TaskContract):
    name = "detection"
    options = {"shown_score": 0.3}
    classes = CLASSES
    decoding = SSD

    @pytest.fixture(scope="class")
    @classmethod
    def task(cls, use):
        return dataclasses.replace(use.plugin.made(use.options), decoding=cls.decoding)

    @pytest.fixture(scope="class")
    @classmethod
    def targets(cls):
        return [
            Boxes.of([[2, 2, 14, 15], [18, 16, 32, 32]], [0, 2]),
            Boxes.of([[5, 3, 22, 20]], [1]),
            Boxes.of([[1, 12, 13, 25], [18, 1, 30, 12]], [2, 1]),
            Boxes.of([[10, 8, 32, 28]], [0]),
            Boxes.of([[20, 4, 32, 14]], [2]),
            Boxes.of([[3, 18, 16, 31], [20, 3, 32, 15]], [1, 0]),
        ]

    @pytest.fixture(scope="class")
    @classmethod
    def outputs(cls, targets):
        return heads_of(targets, cls.decoding)


class TestDetectionOfSsd(DetectionContract):
    pass


class TestDetectionOfFcos(DetectionContract):
    decoding = FCOS
