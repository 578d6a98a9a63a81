"""Training images of detectors are cut out and scaled, and their boxes go along: each still bounds what is in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeopt.data.augment import augment_moved
from edgeopt.errors import RecipeError
from edgeopt.options import Augmentation
from edgeopt.plugins.registry import Registry
from edgeopt.recipe.plan import make_plan
from edgeopt.recipe.read import read_recipe
from edgeopt_detection.boxes import Boxes
from edgeopt_detection.targets import LEAST_SEEN, BoxTargets, augmented_boxes, batch_of
from edgeopt_detection.task import Detection
from edgeopt_lightning.fit.data import Batches, BatchRequest

BOXES = 3  # of an image at most: each is drawn in a channel of its own
IMAGES = 6


def between(one: int, other: int, side: int) -> tuple[int, int]:
    """Two places of a side, the first before the second, from two numbers below 64."""
    first, last = sorted((one * side // 64, other * side // 64))
    return first, last + 1


@st.composite
def images(draw: st.DrawFn) -> tuple[int, int, list[list[tuple[int, int, int, int]]]]:
    """A height and width, and for each image the corners of some boxes within it."""
    height, width = draw(st.integers(12, 72)), draw(st.integers(12, 72))
    share = st.integers(0, 63)
    box = st.builds(lambda *at: (*between(at[0], at[1], width), *between(at[2], at[3], height)), *[share] * 4)
    box = box.map(lambda at: (at[0], at[2], at[1], at[3]))
    return height, width, draw(st.lists(st.lists(box, max_size=BOXES), min_size=IMAGES, max_size=IMAGES))


changes = st.builds(
    Augmentation,
    horizontal_flip=st.booleans(),
    crop_padding=st.integers(0, 8),
    crop_scale=st.sampled_from([1.0, 0.5]),
    iou_crop=st.sampled_from([0.0, 1.0]),
    scale_jitter=st.tuples(st.floats(0.25, 1.0), st.floats(1.0, 4.0)) | st.just((1.0, 1.0)),
)


def changed(
    height: int, width: int, boxes: list[list[tuple[int, int, int, int]]], asked: Augmentation, seed: int
) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
    """Filled boxes, a channel for each, after the changes; their batch of boxes then, and the maps of places."""
    pixels = torch.zeros(len(boxes), BOXES, height, width, dtype=torch.uint8)
    for image, its in enumerate(boxes):
        for channel, (x1, y1, x2, y2) in enumerate(its):
            pixels[image, channel, y1:y2, x1:x2] = 255
    targets = BoxTargets.of([Boxes.of(np.reshape(np.float32(its), (-1, 4)), [0] * len(its)) for its in boxes])
    batch, generator = batch_of(targets), torch.Generator().manual_seed(seed)
    crops = Detection().crops(batch, height, width, generator) if asked.iou_crop else None
    moved, moves = augment_moved(pixels, asked, generator, crops)
    return moved, augmented_boxes(batch, moves), moves.matrices


@settings(max_examples=40, deadline=None)
@given(images(), changes, st.integers(0, 10_000))
def test_each_box_that_stays_bounds_its_shape(drawn: Any, asked: Augmentation, seed: int) -> None:
    height, width, boxes = drawn
    moved, after, maps = changed(height, width, boxes, asked, seed)
    again = changed(height, width, boxes, asked, seed)
    assert torch.equal(moved, again[0]) and torch.equal(after["corners"], again[1]["corners"])
    for image, its in enumerate(boxes):
        for place, box in enumerate(its):
            lit = (moved[image, place] > 128).nonzero().flip(1) + 0.5  # x and y of the middles of its px
            scale = maps[image, [0, 1], [0, 1]].abs()
            whole = (torch.tensor(box[2:]) - torch.tensor(box[:2])) * scale
            if after["classes"][image, place] < 0:
                assert len(lit) <= LEAST_SEEN * float(whole.prod()) + float(whole.sum()) + 4  # and its border
                continue
            x1, y1, x2, y2 = after["corners"][image, place].tolist()
            assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
            assert (x2 - x1) * (y2 - y1) >= LEAST_SEEN * float(whole.prod()) - 1e-2
            if len(lit):
                least, most = lit.amin(dim=0).tolist(), lit.amax(dim=0).tolist()
                assert x1 - 0.02 <= least[0] and most[0] <= x2 + 0.02 and y1 - 0.02 <= least[1] and most[1] <= y2 + 0.02
            lost_on_the_way = asked.crop_padding or asked.crop_scale < 1.0
            if min(x2 - x1, y2 - y1, box[2] - box[0], box[3] - box[1]) >= 4 and not lost_on_the_way:
                assert least[0] - x1 < 1.01 and x2 - most[0] < 1.01  # and not by more than a pixel
                assert least[1] - y1 < 1.01 and y2 - most[1] < 1.01


@settings(max_examples=15, deadline=None)
@given(images(), st.integers(0, 10_000))
def test_a_crop_keeps_a_box_in_sight(drawn: Any, seed: int) -> None:
    height, width, boxes = drawn
    _, after, _ = changed(height, width, boxes, Augmentation(iou_crop=1.0), seed)
    for its, classes in zip(boxes, after["classes"], strict=True):
        assert bool((classes >= 0).any()) == bool(its)


def test_crops_are_as_large_as_they_may_be_and_some_are_none() -> None:
    corners = torch.tensor([[[20.0, 20, 60, 70]]]).expand(600, 1, 4)
    batch = {"corners": corners, "classes": torch.zeros(600, 1, dtype=torch.int64)}
    crops = Detection().crops(batch, 80, 100, torch.Generator().manual_seed(2))
    sides = crops[:, 2:] - crops[:, :2]
    assert bool((crops >= 0).all()) and bool((crops[:, 2:] <= torch.tensor([100.0, 80])).all())
    whole = (sides == torch.tensor([100.0, 80])).all(dim=1)
    assert 0.08 < whole.double().mean() < 0.35  # a seventh, and where nothing overlaps by 0.9
    shares = (sides / torch.tensor([100.0, 80]))[~whole]
    assert 0.3 <= shares.min() < 0.4 and shares.max() > 0.95
    ratio = (sides[:, 0] / sides[:, 1])[~whole]
    assert 0.5 <= ratio.min() < 0.7 and 1.6 < ratio.max() <= 2.0


@dataclass(frozen=True)
class White:
    """White images, each with a box around its middle."""

    def __len__(self) -> int:
        return 16

    @property
    def targets(self) -> BoxTargets:
        return BoxTargets.of([Boxes.of([[8, 8, 24, 24]], [1])] * len(self))

    def pixels(self, indices: Any) -> Any:
        return np.full((len(indices), 32, 32, 3), 255, np.uint8)


def test_batches_of_a_training_are_cut_out_and_scaled() -> None:
    request = BatchRequest(np.arange(16), seed=5)

    def batch(**asked: Any) -> tuple[torch.Tensor, Any]:
        return Batches(White(), Detection(), Augmentation(**asked))[request]

    pixels, boxes = batch(scale_jitter=(0.5, 0.5))
    assert (pixels.double().mean(dim=(1, 2, 3)) / 255 - 0.25).abs().max() < 0.04  # a quarter of each is the image
    assert len({tuple(each.flatten().tolist()) for each in boxes["corners"]}) == 16
    sides = (boxes["corners"][..., 2:] - boxes["corners"][..., :2]).flatten()
    torch.testing.assert_close(sides, torch.full_like(sides, 8.0))
    pixels, boxes = batch(iou_crop=0.5)
    same = (boxes["corners"][:, 0] == torch.tensor([8.0, 8, 24, 24])).all(dim=1)
    assert 4 <= int(same.sum()) <= 14 and bool((pixels[:, :, 2:-2, 2:-2] == 255).all())


RECIPE = """\
schema = 1
name = "asked"

[dataset]
use = "{dataset}"
image_size = 64

[dataset.augmentation]
iou_crop = 0.5
scale_jitter = [0.5, 1.5]
policy = "trivial-augment"

[model]
use = "{model}"
{arch}

[[passes]]
use = "{train}"

[[exports]]
use = "{export}"
"""


@pytest.mark.parametrize(
    ("names", "said", "unsaid"),
    [
        (
            ("digits", "torchvision", 'arch = "resnet18"', "train", "onnx"),
            [":9: augmentation.iou_crop keeps boxes in sight, and targets of the task classification have none"],
            ["scale_jitter", "policy"],
        ),
        (
            ("shapes-masks", "segmenter", 'arch = "unet"', "train", "onnx"),
            [
                ":9: augmentation.iou_crop keeps boxes in sight, and targets of the task segmentation",
                ":11: augmentation.policy",
            ],
            ["scale_jitter"],
        ),
        (
            ("shapes-boxes", "torchvision-detector", "", "train", "onnx"),
            [":11: augmentation.policy moves images, and targets of the task detection"],
            ["scale_jitter", "iou_crop"],
        ),
        (
            ("digits", "keras-applications", 'arch = "MobileNetV2"', "keras-train", "keras-tflite"),
            [":9: augmentation.iou_crop", ":10: augmentation.scale_jitter is not there in keras"],
            [],
        ),
    ],
)
def test_check_refuses_what_targets_do_not_have(
    names: tuple[str, ...], said: list[str], unsaid: list[str], registry: Registry, tmp_path: Path
) -> None:
    dataset, model, arch, train, export = names
    file = tmp_path / "recipe.toml"
    file.write_text(RECIPE.format(dataset=dataset, model=model, arch=arch, train=train, export=export))
    with pytest.raises(RecipeError) as caught:
        make_plan(read_recipe(file), registry)
    for each in said:
        assert f"{file}{each}" in str(caught.value)
    for each in unsaid:
        assert f"augmentation.{each}" not in str(caught.value)
