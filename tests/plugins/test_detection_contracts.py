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
from edgeopt.data.found import read_found, write_found
from edgeopt.data.prepare import prepare
from edgeopt.networks.capture import to_program
from edgeopt.networks.saved import load_state, save_state
from edgeopt.pipeline.report import _Answers
from edgeopt.progress import Silent
from edgeopt.recipe.lookup import resolve
from edgeopt.testing import DatasetContract, ModelContract, TaskContract, tiny_data
from edgeopt.testing.states import outputs_of
from edgeopt.types import targets_of
from edgeopt_detection.boxes import Boxes
from edgeopt_detection.task import Detection

TASK = Detection()
CLASSES = ("cat", "dog", "cow")


def same(one, other):
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("corners", "classes", "crowd"))


class BoxesContract(DatasetContract):
    """What the contract asks of labels, asked of boxes."""

    def test_labels_are_classes(self, raw):
        for images in raw.splits.values():
            assert len(images)
            for index in range(len(images)):
                assert TASK.wrong(images.target(index), len(raw.classes)) is None

    def test_every_class_has_training_images(self, raw):
        train = raw.splits["train"]
        assert {int(label) for index in range(len(train)) for label in train.target(index).classes} == set(
            range(len(raw.classes))
        )

    def test_loading_twice_gives_the_same(self, raw, use):
        again = use.plugin.load(use.options)
        assert again.classes == raw.classes
        for name, images in raw.splits.items():
            assert all(same(images.target(index), again.splits[name].target(index)) for index in range(len(images)))
            assert np.array_equal(np.asarray(images[0]), np.asarray(again.splits[name][0]))

    def test_what_was_found_can_be_handed_on(self, raw, use, tmp_path):
        if use.plugin.find is None:
            pytest.skip("the plugin does not look for files: it declares load and fingerprint")
        found = use.plugin.find(use.options)
        write_found(found, tmp_path / "found")
        read = read_found(tmp_path / "found")
        assert read.fingerprint() == found.fingerprint() == use.plugin.fingerprint(use.options)
        assert same(read.load().splits["train"].target(0), raw.splits["train"].target(0))

    def test_a_run_can_use_it(self, raw, use, tmp_path):
        facts = prepare(raw, use.options, tmp_path, Silent(), images=40, task=TASK)
        bundle = load_data(tmp_path, use.options, lambda: raw)
        train = bundle.training.train
        assert len(targets_of(train)) == len(train) == facts.splits["train"].count > 0
        assert len(targets_of(bundle.test)) == len(bundle.test) > 0
        size = use.options.image_size
        for boxes in targets_of(train).boxes():
            assert TASK.wrong(boxes, len(raw.classes)) is None
            assert (boxes.corners <= size).all()


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


class TestTorchvisionDetector(ModelContract):
    """What the contract asks of logits, asked of raw heads."""

    name = "torchvision-detector"
    options = {"arch": "fcos", "backbone": "mobilenet_v3_small"}

    @pytest.fixture(scope="class")
    @classmethod
    def data(cls):
        return dataclasses.replace(tiny_data(image_size=64), task=TASK)

    def test_gives_logits_of_the_classes(self, state, data):
        heads = outputs_of(state, data.validation, 3)
        assert state.task.unfit([each.shape for each in heads], 3, len(data.classes)) is None
        assert state.output_names == state.task.decoding.outputs
        assert len(state.task.decode(heads)) == 3

    def test_head_follows_the_number_of_classes(self, use, data):
        more = dataclasses.replace(tiny_data(classes=7, image_size=64), task=TASK)
        state = use.plugin.build(use.options, more)
        assert outputs_of(state, more.validation, 1)[0].shape[2] == 7

    def test_can_be_trained(self, use, data):
        import torch

        state = use.plugin.build(use.options, data)
        batch = torch.from_numpy(data.preprocessing.normalize(data.train.pixels(range(2))))
        boxes = state.task.collected([Boxes.of([[8, 8, 40, 40]], [1])] * 2)
        state.task.loss(tuple(state.module.train()(batch)), state.task.batch(boxes)).backward()
        gradients = [parameter.grad for parameter in state.module.parameters() if parameter.grad is not None]
        assert any(gradient.abs().sum() > 0 for gradient in gradients)

    def test_survives_the_store(self, state, data, tmp_path):
        save_state(state, tmp_path)
        loaded = load_state(tmp_path)
        assert loaded.task == state.task
        heads = zip(outputs_of(loaded, data.validation), outputs_of(state, data.validation), strict=True)
        assert all(np.array_equal(one, other) for one, other in heads)

    def test_a_report_asks_the_task_that_the_programs_have(self, state, tmp_path):
        """The plan's task knows no anchors: a model says them."""
        save_state(state, tmp_path)
        plan = SimpleNamespace(exports=[SimpleNamespace(program_stage="program")], task=TASK)
        answers = _Answers(SimpleNamespace(plan=plan, folder=lambda _stage: tmp_path), {}, None)
        assert answers.task == state.task != TASK

    def test_can_be_captured_for_any_batch(self, state, data):
        program = to_program(state, data.validation)
        for count in (1, 3):
            for one, other in zip(
                outputs_of(program, data.validation, count), outputs_of(state, data.validation, count), strict=True
            ):
                np.testing.assert_allclose(one, other, atol=1e-4)


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
