"""Data sets with masks and networks of the task `segmentation` keep what is asked of data sets and models."""

# ruff: noqa: RUF012 - a contract is set up by the attributes of its class

import numpy as np
import pytest
from PIL import Image

from edgeopt.recipe.lookup import resolve
from edgeopt.testing import DatasetContract, ModelContract


class TestShapesMasks(DatasetContract):
    name = "shapes-masks"
    options = {"image_size": 32, "drawn_size": 32, "images": 60}


class TestMaskFolder(DatasetContract):
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
    name = "segmenter"
    options = {"arch": "unet", "width": 4}

    @pytest.fixture(scope="class")
    @classmethod
    def targets(cls):
        return [np.full((32, 32), place, np.uint8) for place in range(2)]
