"""Masks: their scores against torchmetrics', the way of a mask into the frame, folders of masks, and networks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgeopt.data.mosaic import drawn_tiles
from edgeopt.plugins import DataError, Preprocessing, TrainingData
from edgeopt.plugins.registry import load_registry
from edgeopt.testing import TaskContract, tiny_data
from edgeopt_segmentation.found import find_masks
from edgeopt_segmentation.options import MaskFolderOptions
from edgeopt_segmentation.parts.shares import IGNORED
from edgeopt_segmentation.places import moved, overlay_png
from edgeopt_segmentation.plugin import make_task
from edgeopt_segmentation.scores import overlaps
from edgeopt_segmentation.shapes import CLASSES, make_shapes
from edgeopt_segmentation.task import Segmentation

SHAPES = make_shapes(16, 32, 0).splits["train"]
MASKS = [SHAPES.target(index) for index in range(len(SHAPES))]


def one_hot(masks: Any, classes: int = len(CLASSES)) -> Any:
    return 9.0 * np.eye(classes, dtype=np.float32)[np.stack(masks)].transpose(0, 3, 1, 2)


# ---- scores --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def torchvision() -> None:
    """Imported the careful way, before torchmetrics imports it plainly."""
    from edgeopt_torchvision.compat import import_torchvision

    import_torchvision()


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.integers(1, 5), st.integers(1, 9), st.integers(0, 10_000), st.floats(0.0, 1.0))
def test_iou_is_that_of_torchmetrics(classes: int, images: int, side: int, seed: int, wrong: float) -> None:
    import torch
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_jaccard_index

    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, (images, side, side))
    own = np.where(random.random(truth.shape) < wrong, random.integers(0, classes, truth.shape), truth)
    truth[random.random(truth.shape) < 0.2] = IGNORED
    found = overlaps(own, truth, classes, IGNORED)
    if (truth == IGNORED).all():
        assert np.isnan(found.mean)
        return
    given, expected = torch.from_numpy(own), torch.from_numpy(truth)
    by_class = multiclass_jaccard_index(given, expected, classes, average="none", ignore_index=IGNORED).numpy()
    np.testing.assert_allclose(np.nan_to_num(found.by_class), by_class, atol=1e-6)
    mean = multiclass_jaccard_index(given, expected, classes, average="macro", ignore_index=IGNORED)
    assert found.mean == pytest.approx(float(mean), abs=1e-6)
    accuracy = multiclass_accuracy(given, expected, classes, average="micro", ignore_index=IGNORED)
    assert found.accuracy == pytest.approx(float(accuracy), abs=1e-6)
    apart = found.intervals()
    assert apart.mean[0] <= apart.mean[1] and apart.accuracy[0] <= found.accuracy <= apart.accuracy[1] + 1e-9


def test_intervals_hold_the_figure_and_narrow_with_more_images() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, (200, 6, 6))
    own = np.where(random.random((200, 1, 1)) < 0.3, 0, truth)
    few, many = (overlaps(own[:count], truth[:count], 3, IGNORED) for count in (20, 200))
    for found in (few, many):
        low, high = found.intervals().mean
        assert low < found.mean < high
    width = [high - low for low, high in (few.intervals().mean, many.intervals().mean)]
    assert width[1] < width[0] / 2


# ---- the task ------------------------------------------------------------------------------------------------------


class TestSegmentation(TaskContract):
    name = "segmentation"
    classes = CLASSES

    @pytest.fixture(scope="class")
    @classmethod
    def targets(cls) -> Any:
        return MASKS

    @pytest.fixture(scope="class")
    @classmethod
    def outputs(cls) -> Any:
        return (one_hot(MASKS),)


def test_masks_go_into_the_frame_as_their_images() -> None:
    """Whatever becomes of the sides: where an image is bright, its mask is 1."""
    for fit, size in (("crop", (24, 40)), ("letterbox", (40, 24)), ("stretch", (30, 50))):
        mask = np.zeros((60, 90), np.uint8)
        mask[12:40, 30:75] = 1
        preprocessing = Preprocessing(size, resize=min(size), crop=size, fit=fit) if fit == "crop" else None
        preprocessing = preprocessing or Preprocessing(size, resize=min(size), crop=size, fit=fit)
        image = Image.fromarray(np.repeat(mask[..., None] * 255, 3, axis=2))
        pixels, geometry = preprocessing.pixels_and_geometry(image)
        found = moved(mask, geometry, IGNORED)
        assert found.shape == size
        sure = (found != IGNORED) & ((pixels[..., 0] < 64) | (pixels[..., 0] > 191))
        assert sure.mean() > 0.3
        assert ((pixels[..., 0] > 127) == (found == 1))[sure].mean() > 0.995, fit


def test_masks_are_put_together_as_their_images() -> None:
    """Of images that show their masks, mosaics show theirs, but for a few places at edges."""
    random = np.random.default_rng(4)
    masks = random.integers(0, 3, (8, 4, 6)).astype(np.uint8).repeat(12, axis=1).repeat(12, axis=2)
    masks[0, :20] = IGNORED
    pixels = torch.from_numpy(masks)[:, None]
    tiles = drawn_tiles(8, 48, 72, 1.0, torch.Generator().manual_seed(2))
    batch = Segmentation().batch(masks)
    shown, moved = tiles.images(pixels * 80)[:, 0], Segmentation().tiled(batch, tiles)
    assert moved.dtype == torch.int64 and moved.shape == batch.shape and not torch.equal(moved, batch)
    assert set(moved.unique().tolist()) == {0, 1, 2, IGNORED}
    judged = moved != IGNORED
    assert ((shown / 80).round() == moved)[judged].double().mean() > 0.93
    assert bool((tiles.images(pixels)[:, 0][~judged] > 2).all())


def test_classes_in_integers_are_judged_as_logits_are() -> None:
    task, targets = Segmentation(), np.stack(MASKS)
    logits = one_hot(MASKS)
    logits[0] = 0.0  # all equal: the first class everywhere
    classes = logits.argmax(axis=1).astype(np.uint8)
    assert task.scores((logits,), targets) == task.scores((classes,), targets)
    assert task.agreement((classes,), (logits,)) == 1.0 and task.alike((classes,), (one_hot(MASKS),)).sum() == 15
    sections = task.sections((logits,), targets, CLASSES)
    assert len(sections[0].tables[0].rows) == len(CLASSES)
    assert sections[0].images[0].index == 0 and sections[0].images[0].overlay_png
    assert task.unfit([(2, 4, 8, 8)], 2, 5) and task.unfit([(2, 5)], 2, 5) and not task.unfit([(2, 5, 8, 8)], 2, 5)
    assert "none of the 5 classes" in (task.wrong(np.full((4, 4), 7, np.uint8), 5) or "")
    assert overlay_png(MASKS[0], IGNORED)


def test_places_that_nobody_judged_do_not_count() -> None:
    import torch

    task, batch = make_task(MaskOptions()), torch.full((2, 4, 4), IGNORED)
    outputs = (torch.randn(2, 3, 4, 4, requires_grad=True),)
    assert float(task.loss(outputs, batch)) == pytest.approx(0.5)  # no class has anything, so nothing overlaps
    batch[0, 0, 0] = 1
    loss = task.loss(outputs, batch)
    loss.backward()
    assert not outputs[0].grad[:, :, 1:].any() and outputs[0].grad[0, :, 0, 0].any()


class MaskOptions:
    dice, right_from = 0.5, 0.5


# ---- folders of masks ----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, count in (("train", 6), ("val", 2)):
        for name in ("images", "masks"):
            (tmp_path / split / name).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(SHAPES[index]).save(tmp_path / split / "images" / f"{index}.png")
            mask = Image.fromarray(np.where(MASKS[index] > 0, 128, 0).astype(np.uint8))
            mask.save(tmp_path / split / "masks" / f"{index}.png")
    return tmp_path


def options(path: Path, **more: Any) -> MaskFolderOptions:
    return MaskFolderOptions(path=path, class_names=("ground", "shape"), values=(0, 128), image_size=32, **more)


def test_a_folder_of_masks_is_read(folder: Path) -> None:
    found = find_masks(options(folder))
    raw = found.load()
    assert {name: len(split) for name, split in raw.splits.items()} == {"train": 6, "validation": 2}
    assert np.array_equal(raw.splits["train"].target(3), MASKS[3] > 0)
    before = found.fingerprint()
    (folder / "train" / "masks" / "0.png").write_bytes((folder / "train" / "masks" / "1.png").read_bytes())
    assert find_masks(options(folder)).fingerprint() != before


def test_wrong_masks_are_named_all_at_once(folder: Path) -> None:
    masks = folder / "train" / "masks"
    Image.new("L", (30, 32)).save(masks / "1.png")
    Image.new("L", (32, 32), 7).save(masks / "2.png")
    Image.new("RGB", (32, 32)).save(masks / "3.png")
    (masks / "4.png").write_bytes(b"no image")
    with pytest.raises(DataError) as caught:
        find_masks(options(folder)).load()
    text = str(caught.value)
    for said in ("1.png: is 30 × 32 px, and its image 32 × 32", "2.png: has the value 7, and classes have 0, 128"):
        assert said in text
    assert "3.png: is no mask" in text and "4.png" in text
    raw = find_masks(options(folder, on_error="skip")).load()
    with pytest.raises(DataError, match="has the value 7"):
        raw.splits["train"].target(2)


def test_images_without_masks_and_the_reverse(folder: Path) -> None:
    (folder / "train" / "masks" / "5.png").unlink()
    (folder / "val" / "images" / "1.png").unlink()
    with pytest.raises(DataError) as caught:
        find_masks(options(folder))
    assert "without mask: " in str(caught.value) and "without image: " in str(caught.value)
    with pytest.raises(ValueError, match="stands for two things"):
        MaskFolderOptions(path=folder, class_names=("a", "b"), values=(0, 255))


# ---- networks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ["unet", "lraspp_mobilenet_v3_large"])
def test_networks_give_a_map_and_learn(arch: str) -> None:
    import torch

    from edgeopt.networks.capture import to_program
    from edgeopt.plugins import ModelPlugin
    from edgeopt.recipe.lookup import resolve

    data = masked_data()
    registry = load_registry()
    use = resolve(ModelPlugin, "segmenter", {"arch": arch, **({"width": 4} if arch == "unet" else {})}, registry)
    torch.manual_seed(0)
    state = use.plugin.build(use.options, data)
    assert state.output_names == ("masks",)
    assert state.imports[0] == "edgeopt_torchvision.loaded"  # else a process that reads it imports torchvision plainly
    program = to_program(state, data.validation)
    images = torch.from_numpy(data.preprocessing.normalize(data.train.pixels(range(4))))
    assert program.program.module()(images).shape == (4, len(CLASSES), 32, 32)
    batch = data.task.batch(np.stack(MASKS[:4]))
    optimizer = torch.optim.Adam(state.module.train().parameters(), 0.01)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = data.task.loss((state.module(images),), batch)
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]


def test_a_segmenter_learns_from_a_larger_one_and_not_from_a_classifier(tmp_path: Path) -> None:
    import torch

    from edgeopt.errors import TrainingError
    from edgeopt.options import Options, TrainerSettings
    from edgeopt.plugins import ModelPlugin, PassPlugin, Use
    from edgeopt.plugins.contexts import PassContext
    from edgeopt.progress import Silent
    from edgeopt.recipe.lookup import resolve
    from edgeopt.testing import tiny_model

    data, registry = masked_data(), load_registry()
    data = dataclasses.replace(
        data, **{name: MaskedSplit(getattr(data, name)) for name in ("train", "calibration", "validation")}
    )

    def segmenter(width: int) -> Any:
        use = resolve(ModelPlugin, "segmenter", {"arch": "unet", "width": width}, registry)
        torch.manual_seed(0)
        return use.plugin.build(use.options, data)

    def taught_by(teacher: Any) -> Any:
        made = Use(ModelPlugin("larger", "A network at hand.", Options, build=lambda *_: teacher), Options())
        options = {"teacher": made, "epochs": 1, "batch_size": 8, "control": False}
        use = resolve(PassPlugin, "distill", options, registry)
        context = PassContext(data, TrainerSettings(accelerator="cpu", threads=1), 17, tmp_path, Silent())
        return use.plugin.apply(segmenter(4), use.options, context)

    facts = taught_by(segmenter(8)).history[-1].facts
    assert facts["teacher"] == "larger" and 0 <= facts["teacher_miou"] < 1
    classifier = dataclasses.replace(tiny_model(tiny_data(classes=len(CLASSES))), classes=CLASSES)
    with pytest.raises(TrainingError, match="'larger' is for classification, and the student for segmentation"):
        taught_by(classifier)


@dataclasses.dataclass(frozen=True)
class MaskedSplit:
    """Images of a split, each with one of the masks."""

    split: Any

    def __len__(self) -> int:
        return len(self.split)

    @property
    def targets(self) -> Any:
        return np.stack([MASKS[index % len(MASKS)] for index in range(len(self))])

    def pixels(self, indices: Any) -> Any:
        return self.split.pixels(indices)


def masked_data() -> TrainingData:
    plain = tiny_data(classes=len(CLASSES))
    return dataclasses.replace(plain, classes=CLASSES, task=Segmentation())
