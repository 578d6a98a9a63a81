"""The task keeps the contract, and angles are those of bars."""

import numpy as np
import pytest
import torch
from edgeopt_angle.bars import RotatedBars
from edgeopt_angle.task import Angle

from edgeopt.data.augment import augment_moved
from edgeopt.plugins import Augmentation, GuessKind
from edgeopt.testing import TaskContract

ANGLES = [0.0, 1.0, 45.0, 90.0, 120.0, 179.0, 30.0, 60.0]


def answering(angles):
    """What a network that knows these angles answers."""
    twice = np.radians(2 * np.asarray(angles, dtype=np.float32))
    return (np.stack([np.cos(twice), np.sin(twice)], axis=1),)


class TestAngle(TaskContract):
    name, options = "angle", {"close_degrees": 3.0}

    @pytest.fixture(scope="class")
    @classmethod
    def targets(cls):
        return ANGLES

    @pytest.fixture(scope="class")
    @classmethod
    def outputs(cls):
        return answering(ANGLES)


def test_angles_meet_at_half_a_turn():
    task = Angle()
    scores = task.scores(answering([179.0, 1.0]), task.collected([1.0, 178.0]))
    assert scores.primary.value == pytest.approx(2.5, abs=1e-3)
    assert scores.get("within").value == 1.0
    assert task.scores(answering([90.0]), task.collected([0.0])).primary.value == pytest.approx(90.0, abs=1e-3)


def test_an_angle_in_another_unit_is_told():
    assert "degrees from 0 to 180" in Angle().wrong(-30.0, 0)
    assert "270" in Angle().wrong(270.0, 0)


def test_guesses_are_told():
    random = np.random.default_rng(0)
    targets = Angle().collected(random.uniform(0, 180, 200))
    assert Angle().guess(answering(targets + 2), targets, ()) is None
    assert Angle().guess(answering(np.full(200, 30.0)), targets, ()).kind is GuessKind.ONE_CLASS
    assert Angle().guess(answering(random.uniform(0, 180, 200)), targets, ()).kind is GuessKind.CONSTANT


@pytest.mark.parametrize("changes", [{"horizontal_flip": True}, {"rotation_degrees": 90.0}, {"crop_padding": 4}])
def test_targets_turn_with_their_images(changes):
    """The bar of a changed image has the angle that the target says: the axis of its bright places."""
    bars, task = RotatedBars(24, 0.0, seed=1), Angle()
    pixels = torch.from_numpy(np.stack([bars[index] for index in range(24)]))[:, None].repeat(1, 3, 1, 1)
    batch = task.batch(task.collected([bars.target(index) for index in range(24)]))
    moved, moves = augment_moved(pixels, Augmentation(**changes), torch.Generator().manual_seed(0))
    expected = task.augmented(batch, moves)
    y, x = np.mgrid[:48, :48]
    for image, degrees in zip(moved[:, 0].numpy(), expected, strict=True):
        spread = np.cov(np.stack([x[image > 140], -y[image > 140]]))
        axis = np.linalg.eigh(spread)[1][:, -1]
        seen = np.degrees(np.arctan2(axis[1], axis[0])) % 180
        assert abs((seen - float(degrees) + 90) % 180 - 90) < 4
