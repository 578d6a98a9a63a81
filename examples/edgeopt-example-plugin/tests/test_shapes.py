"""The data set keeps the contract, and its images can be told apart."""

# ruff: noqa: RUF012 - a contract is set up by the attributes of its class

import numpy as np
from edgeopt_example.shapes import SHAPES, Shapes

from edgeopt.testing import DatasetContract


class TestShapes(DatasetContract):
    name = "drawn-shapes"
    options = {"image_size": 32, "images": 24}


def test_noise_is_what_the_option_says():
    quiet, noisy = Shapes(1, 0.0, seed=1), Shapes(1, 0.6, seed=1)
    for index in range(len(SHAPES)):
        difference = quiet[index].astype(float) - noisy[index]
        assert 30 < difference.std() < 90
        assert len(np.unique(quiet[index].reshape(-1, 3), axis=0)) == 2  # ground and shape


def test_another_seed_draws_other_images():
    assert not np.array_equal(Shapes(1, 0.2, seed=1)[0], Shapes(1, 0.2, seed=2)[0])


def test_shapes_cover_what_their_geometry_says():
    """A circle covers more of its square than a triangle or a cross: the drawings are not all alike."""
    images = Shapes(40, 0.0, seed=3)
    covered: dict[str, list[float]] = {shape: [] for shape in SHAPES}
    for index in range(len(images)):
        pixels = images[index].reshape(-1, 3)
        _, counts = np.unique(pixels, axis=0, return_counts=True)
        covered[SHAPES[images.labels[index]]].append(counts.min() / counts.sum())
    mean = {shape: float(np.mean(shares)) for shape, shares in covered.items()}
    assert mean["circle"] > mean["square"] > mean["triangle"] > mean["cross"]
