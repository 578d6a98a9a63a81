"""Data sets with masks and networks of the task `segmentation` keep what is asked of data sets and models."""

# ruff: noqa: RUF012 - a contract is set up by the attributes of its class

import dataclasses

import numpy as np
import pytest
from PIL import Image

from edgeopt.data.cache import load_data
from edgeopt.data.found import read_found, write_found
from edgeopt.data.prepare import prepare
from edgeopt.networks.capture import to_program
from edgeopt.networks.saved import load_state, save_state
from edgeopt.progress import Silent
from edgeopt.recipe.lookup import resolve
from edgeopt.testing import DatasetContract, ModelContract, tiny_data
from edgeopt.testing.states import outputs_of
from edgeopt.types import targets_of
from edgeopt_segmentation.task import Segmentation

TASK = Segmentation()


class MasksContract(DatasetContract):
    """What the contract asks of labels, asked of masks."""

    def test_labels_are_classes(self, raw):
        for images in raw.splits.values():
            assert len(images)
            for index in range(0, len(images), 7):
                assert TASK.wrong(images.target(index), len(raw.classes)) is None

    def test_every_class_has_training_images(self, raw):
        train = raw.splits["train"]
        seen = np.unique(np.concatenate([np.unique(train.target(index)) for index in range(len(train))]))
        assert set(range(len(raw.classes))) <= set(seen.tolist())

    def test_loading_twice_gives_the_same(self, raw, use):
        again = use.plugin.load(use.options)
        assert again.classes == raw.classes
        for name, images in raw.splits.items():
            assert np.array_equal(images.target(1), again.splits[name].target(1))
            assert np.array_equal(np.asarray(images[0]), np.asarray(again.splits[name][0]))

    def test_what_was_found_can_be_handed_on(self, raw, use, tmp_path):
        if use.plugin.find is None:
            pytest.skip("the plugin does not look for files: it declares load and fingerprint")
        found = use.plugin.find(use.options)
        write_found(found, tmp_path / "found")
        read = read_found(tmp_path / "found")
        assert read.fingerprint() == found.fingerprint() == use.plugin.fingerprint(use.options)
        assert np.array_equal(read.load().splits["train"].target(0), raw.splits["train"].target(0))

    def test_a_run_can_use_it(self, raw, use, tmp_path):
        facts = prepare(raw, use.options, tmp_path, Silent(), images=40, task=TASK)
        bundle = load_data(tmp_path, use.options, lambda: raw)
        train = bundle.training.train
        assert len(targets_of(train)) == len(train) == facts.splits["train"].count > 0
        assert len(targets_of(bundle.test)) == len(bundle.test) > 0
        assert targets_of(train)[:2].shape == (2, use.options.image_size, use.options.image_size)


class TestShapesMasks(MasksContract):
    name = "shapes-masks"
    options = {"image_size": 32, "drawn_size": 32, "images": 60}


class TestMaskFolder(MasksContract):
    name = "mask-folder"

    @pytest.fixture(scope="class")
    @classmethod
    def use(cls, registry, tmp_path_factory):
        folder = tmp_path_factory.mktemp("masks")
        random = np.random.default_rng(0)
        for place in range(40):
            values = {"images": random.integers(0, 256, (30, 40, 3)), "masks": random.integers(0, 2, (30, 40))}
            for name, pixels in values.items():
                (folder / name).mkdir(exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{place}.png")
        cls.options = {"image_size": 32, "path": str(folder), "class_names": ["ground", "thing"]}
        return resolve(cls.kind, cls.name, cls.options, registry)

    def test_unknown_option_is_an_error(self, use, registry):  # `use` first: it completes the options
        super().test_unknown_option_is_an_error(registry)


class TestSegmenter(ModelContract):
    """What the contract asks of logits, asked of maps of them."""

    name = "segmenter"
    options = {"arch": "unet", "width": 4}

    @pytest.fixture(scope="class")
    @classmethod
    def data(cls):
        return dataclasses.replace(tiny_data(image_size=32), task=TASK)

    def test_gives_logits_of_the_classes(self, state, data):
        maps = outputs_of(state, data.validation, 3)
        assert state.task.unfit([each.shape for each in maps], 3, len(data.classes)) is None

    def test_head_follows_the_number_of_classes(self, use, data):
        more = dataclasses.replace(tiny_data(classes=7, image_size=32), task=TASK)
        state = use.plugin.build(use.options, more)
        assert outputs_of(state, more.validation, 1)[0].shape[1] == 7

    def test_can_be_trained(self, use, data):
        import torch

        state = use.plugin.build(use.options, data)
        batch = torch.from_numpy(data.preprocessing.normalize(data.train.pixels(range(2))))
        masks = state.task.batch(np.zeros((2, 32, 32), np.uint8))
        state.task.loss((state.module.train()(batch),), masks).backward()
        assert any(each.grad is not None and each.grad.abs().sum() > 0 for each in state.module.parameters())

    def test_survives_the_store(self, state, data, tmp_path):
        save_state(state, tmp_path)
        loaded = load_state(tmp_path)
        assert loaded.task == state.task
        maps = zip(outputs_of(loaded, data.validation), outputs_of(state, data.validation), strict=True)
        assert all(np.array_equal(one, other) for one, other in maps)

    def test_can_be_captured_for_any_batch(self, state, data):
        program = to_program(state, data.validation)
        for count in (1, 3):
            maps = zip(
                outputs_of(program, data.validation, count), outputs_of(state, data.validation, count), strict=True
            )
            for one, other in maps:
                np.testing.assert_allclose(one, other, atol=1e-4)
