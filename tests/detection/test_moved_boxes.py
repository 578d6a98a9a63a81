"""Training images of detectors are cut out and scaled, and their boxes go along: each still bounds what is in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_detector import box_data

from edgeopt.data.augment import augment_moved
from edgeopt.data.mosaic import drawn_tiles
from edgeopt.errors import RecipeError
from edgeopt.options import Augmentation
from edgeopt.plugins import Moves, Tiles
from edgeopt.plugins.registry import Registry
from edgeopt.recipe.plan import make_plan
from edgeopt.recipe.read import read_recipe
from edgeopt_detection.boxes import Boxes
from edgeopt_detection.targets import LEAST_SEEN, BoxTargets, augmented_boxes, batch_of, tiled_boxes
from edgeopt_detection.task import Detection
from edgeopt_lightning.fit.data import Batches, BatchRequest, Shuffled, training_loader

BOXES = 3  # of an image at most
IMAGES = 6  # each box of each is a class of its own, and drawn in a channel of its own


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
    mosaic=st.sampled_from([0.0, 0.5, 1.0]),
    horizontal_flip=st.booleans(),
    crop_padding=st.integers(0, 8),
    crop_scale=st.sampled_from([1.0, 0.5]),
    iou_crop=st.sampled_from([0.0, 1.0]),
    scale_jitter=st.tuples(st.floats(0.25, 1.0), st.floats(1.0, 4.0)) | st.just((1.0, 1.0)),
)


@dataclass(frozen=True)
class Drawn:
    """Images of filled boxes, and these."""

    images: torch.Tensor
    boxes: list[list[tuple[int, int, int, int]]]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def targets(self) -> BoxTargets:
        labels = [[BOXES * image + place for place in range(len(its))] for image, its in enumerate(self.boxes)]
        corners = [np.reshape(np.float32(its), (-1, 4)) for its in self.boxes]
        return BoxTargets.of([Boxes.of(its, names) for its, names in zip(corners, labels, strict=True)])

    def pixels(self, indices: Any) -> Any:
        return self.images[indices].permute(0, 2, 3, 1).numpy()


@dataclass(frozen=True)
class Watched(Detection):
    """The task, and what it was told of how images were changed."""

    tiles: list[Tiles] = field(default_factory=list)
    moves: list[Moves] = field(default_factory=list)

    def tiled(self, batch: Any, tiles: Tiles) -> Any:
        self.tiles.append(tiles)
        return super().tiled(batch, tiles)

    def augmented(self, batch: Any, moves: Moves) -> Any:
        self.moves.append(moves)
        return super().augmented(batch, moves)

    def sources(self, image: int) -> list[tuple[int, torch.Tensor]]:
        """Which images are seen in this one, and by which factors each was scaled before it was moved, (x, y)."""
        for tiles in self.tiles:
            for made, sources, parts, places in zip(tiles.made, tiles.sources, tiles.parts, tiles.places, strict=True):
                if made == image:
                    scales = (places[:, 2:] - places[:, :2]) / (parts[:, 2:] - parts[:, :2])
                    return list(zip(sources.tolist(), scales, strict=True))
        return [(image, torch.ones(2))]


def changed(
    height: int, width: int, boxes: list[list[tuple[int, int, int, int]]], asked: Augmentation, seed: int
) -> tuple[torch.Tensor, dict[str, torch.Tensor], Watched]:
    """Filled boxes, a channel for each, as a batch of a training; its boxes, and how both came about."""
    pixels = torch.zeros(len(boxes), BOXES * len(boxes), height, width, dtype=torch.uint8)
    for image, its in enumerate(boxes):
        for place, (x1, y1, x2, y2) in enumerate(its):
            pixels[image, BOXES * image + place, y1:y2, x1:x2] = 255
    task = Watched()
    moved, after = Batches(Drawn(pixels, boxes), task, asked)[BatchRequest(np.arange(len(boxes)), seed)]
    return moved, after, task


@settings(max_examples=60, deadline=None)
@given(images(), changes, st.integers(0, 10_000))
def test_each_box_that_stays_bounds_its_shape(drawn: Any, asked: Augmentation, seed: int) -> None:
    height, width, boxes = drawn
    moved, after, task = changed(height, width, boxes, asked, seed)
    again = changed(height, width, boxes, asked, seed)
    assert torch.equal(moved, again[0]) and torch.equal(after["corners"], again[1]["corners"])
    assert bool(task.tiles) == bool(asked.mosaic) and (asked.mosaic < 1.0 or len(task.tiles[0].made) == IMAGES)
    for image in range(IMAGES):
        labels = after["classes"][image].tolist()
        grown = task.moves[0].matrices[image, [0, 1], [0, 1]].abs()
        sources = task.sources(image)
        assert {label // BOXES for label in labels if label >= 0} <= {source for source, _ in sources}
        for source, scale in sources:
            is_tile = len(sources) > 1
            blur_x, blur_y = (grown * is_tile).tolist()  # what was resized to whole px is made larger
            for place, box in enumerate(boxes[source]):
                label = BOXES * source + place
                lit = (moved[image, label] > 128).nonzero().flip(1) + 0.5  # x and y of the middles of its px
                before = (torch.tensor(box[2:]) - torch.tensor(box[:2])) * scale
                whole = before * grown
                if label not in labels:
                    edges = float(whole.sum()) + 4
                    assert len(lit) <= LEAST_SEEN * float(whole.prod()) + edges * (1 + max(blur_x, blur_y))
                    continue
                assert labels.count(label) == 1
                x1, y1, x2, y2 = after["corners"][image, labels.index(label)].tolist()
                assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
                assert (x2 - x1) * (y2 - y1) >= LEAST_SEEN * float(whole.prod()) - 1e-2
                if len(lit):
                    least, most = lit.amin(dim=0).tolist(), lit.amax(dim=0).tolist()
                    assert x1 - 0.02 - blur_x / 2 <= least[0] and most[0] <= x2 + 0.02 + blur_x / 2
                    assert y1 - 0.02 - blur_y / 2 <= least[1] and most[1] <= y2 + 0.02 + blur_y / 2
                lost_on_the_way = asked.crop_padding or asked.crop_scale < 1.0
                seen = torch.tensor([x2 - x1, y2 - y1])
                sides = [*seen.tolist(), *before.tolist(), *((seen / grown).tolist() if is_tile else ())]
                if min(sides) >= 4 and not lost_on_the_way:
                    assert least[0] - x1 < 1.01 + blur_x and x2 - most[0] < 1.01 + blur_x  # and not by more than a px
                    assert least[1] - y1 < 1.01 + blur_y and y2 - most[1] < 1.01 + blur_y


@settings(max_examples=15, deadline=None)
@given(images(), st.integers(0, 10_000), st.sampled_from([0.0, 1.0]))
def test_a_crop_keeps_a_box_in_sight(drawn: Any, seed: int, mosaic: float) -> None:
    height, width, boxes = drawn
    _, before, _ = changed(height, width, boxes, Augmentation(mosaic=mosaic), seed)
    _, after, _ = changed(height, width, boxes, Augmentation(mosaic=mosaic, iou_crop=1.0), seed)
    for there, still in zip(before["classes"], after["classes"], strict=True):
        assert bool((still >= 0).any()) == bool((there >= 0).any())


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


def test_four_images_meet_round_a_middle_and_none_is_stretched() -> None:
    tiles = drawn_tiles(200, 60, 90, 1.0, torch.Generator().manual_seed(1))
    assert tiles.made.tolist() == tiles.sources[:, 0].tolist() == list(range(200))
    assert all(len(set(each)) == 4 for each in tiles.sources.tolist())
    middle = tiles.places[:, 0, 2:]
    assert middle.amin(dim=0).tolist() == [23, 15] and middle.amax(dim=0).tolist() == [67, 45]
    parts, places = (each[..., 2:] - each[..., :2] for each in (tiles.parts, tiles.places))
    assert bool((places.prod(dim=2).sum(dim=1) == 60 * 90).all()) and bool((parts <= torch.tensor([90, 60])).all())
    assert bool((tiles.parts >= 0).all()) and tiles.parts.amax(dim=(0, 1)).tolist()[2:] == [90, 60]
    ratio = (places[..., 0] * parts[..., 1]) / (places[..., 1] * parts[..., 0])
    assert ratio.min() > 0.93 and ratio.max() < 1.07  # whole px
    scale = places.sum(dim=2) / parts.sum(dim=2)
    assert scale.min() < 0.35 and scale.max() == 1.0 and 0.6 < scale.median() < 0.85
    assert 70 < len(drawn_tiles(200, 60, 90, 0.5, torch.Generator().manual_seed(1)).made) < 130


def test_boxes_are_cut_at_the_edges_of_their_part_and_crowd_regions_go_along() -> None:
    whole = [0, 0, 40, 40]
    tiles = Tiles(
        torch.tensor([1]),
        torch.tensor([[1, 0]]),
        torch.tensor([[[10, 0, 30, 40], whole]]),
        torch.tensor([[[0, 0, 20, 40], [20, 0, 40, 20]]]),
    )
    one = Boxes.of([[0, 0, 40, 20], [4, 8, 8, 12]], [3, 4], [True, False])
    other = Boxes.of([[12, 5, 38, 15], [0, 2, 13, 9], [32, 0, 40, 8]], [0, 1, 2])
    after = augmented_boxes(tiled_boxes(batch_of(BoxTargets.of([one, other])), tiles), still(2, 40))
    assert after["corners"][0, :2].tolist() == [[0, 0, 40, 20], [4, 8, 8, 12]]
    assert after["classes"].tolist() == [[-2, 4, -1, -1], [0, -2, -2, 4]]  # of the second box, 3 of 13 px are left
    assert after["corners"][1].tolist() == [[2, 5, 20, 15], [0, 2, 3, 9], [20, 0, 40, 10], [22, 4, 24, 6]]


def test_a_batch_in_which_no_image_was_drawn_stays_as_it_is() -> None:
    tiles = drawn_tiles(16, 32, 32, 1e-9, torch.Generator().manual_seed(3))
    batch, pixels = batch_of(White().targets), torch.zeros(16, 3, 32, 32, dtype=torch.uint8)
    after = augmented_boxes(tiled_boxes(batch, tiles), still(16, 32))
    assert not len(tiles.made) and torch.equal(tiles.images(pixels), pixels)
    assert all(torch.equal(after[name], batch[name]) for name in batch)
    assert torch.equal(tiles.masks(pixels[:, 0]), pixels[:, 0])


def test_images_alone_and_without_boxes_are_put_together_too() -> None:
    request = BatchRequest(np.arange(1), seed=3)
    pixels, boxes = Batches(White(), Detection(), Augmentation(mosaic=1.0))[request]
    assert pixels.shape == (1, 3, 32, 32) and bool((pixels == 255).all())
    assert boxes["corners"].shape[1] <= 4 and set(boxes["classes"].flatten().tolist()) <= {1, -1, -2}
    none = BoxTargets.of([Boxes.of([], [])] * 3)
    tiles = drawn_tiles(3, 32, 32, 1.0, torch.Generator().manual_seed(3))
    assert sorted(set(tiles.sources[1].tolist())) == [0, 1, 2]
    after = augmented_boxes(tiled_boxes(batch_of(none), tiles), still(3, 32))
    assert after["classes"].tolist() == [[-1]] * 3


def test_what_is_not_asked_for_draws_nothing() -> None:
    """A batch without mosaics is that of before there were any, whatever else is asked for."""
    request, asked = BatchRequest(np.arange(16), seed=5), Augmentation(horizontal_flip=True, scale_jitter=(0.5, 2.0))
    pixels, boxes = Batches(White(), Detection(), asked)[request]
    expected, moves = augment_moved(
        torch.full((16, 3, 32, 32), 255, dtype=torch.uint8), asked, torch.Generator().manual_seed(5)
    )
    assert torch.equal(pixels, expected)
    assert torch.equal(boxes["corners"], augmented_boxes(batch_of(White().targets), moves)["corners"])


def test_mosaics_repeat_with_their_seed_in_any_process_and_leave_images_alone() -> None:
    data, asked = box_data(), Augmentation(mosaic=0.5, horizontal_flip=True, contrast=0.2)
    before = data.train.pixels(slice(None)).copy()

    def loaded(workers: int, seed: int, asked: Augmentation = asked) -> list[Any]:
        return list(training_loader(data.train, Detection(), Shuffled(32, 8, seed=seed), asked, workers))

    for (here, boxes), (there, again), (other, _) in zip(loaded(0, 1), loaded(1, 1), loaded(0, 2), strict=True):
        assert torch.equal(here, there) and not torch.equal(here, other)
        assert all(torch.equal(boxes[name], again[name]) for name in boxes) and set(boxes) == {"corners", "classes"}
    assert np.array_equal(before, data.train.pixels(slice(None)))


def still(count: int, edge: int) -> Moves:
    """Images that stay where they are."""
    return Moves(torch.eye(3).repeat(count, 1, 1)[:, :2], edge, edge)


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
mosaic = 0.5

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
            [
                ":9: augmentation.iou_crop keeps boxes in sight, and targets of the task classification have none",
                ":12: augmentation.mosaic puts parts of images together, and targets of the task classification",
            ],
            ["scale_jitter", "policy"],
        ),
        (
            ("shapes-masks", "segmenter", 'arch = "unet"', "train", "onnx"),
            [
                ":9: augmentation.iou_crop keeps boxes in sight, and targets of the task segmentation",
                ":11: augmentation.policy",
            ],
            ["scale_jitter", "mosaic"],
        ),
        (
            ("shapes-boxes", "torchvision-detector", "", "train", "onnx"),
            [":11: augmentation.policy moves images, and targets of the task detection"],
            ["scale_jitter", "iou_crop", "mosaic"],
        ),
        (
            ("shapes-boxes", "torchvision-detector", "", "qat", "onnx"),
            [":12: augmentation.mosaic would change nothing: 'qat' trains without it, and nothing else trains"],
            ["scale_jitter", "iou_crop"],
        ),
        (
            ("digits", "keras-applications", 'arch = "MobileNetV2"', "keras-train", "keras-tflite"),
            [
                ":9: augmentation.iou_crop",
                ":10: augmentation.scale_jitter is not there in keras",
                ":12: augmentation.mosaic",
            ],
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
    assert ("use cutmix, which mixes targets too" in str(caught.value)) == (dataset == "digits")
    for each in unsaid:
        assert f"augmentation.{each}" not in str(caught.value)
