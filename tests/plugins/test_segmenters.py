"""Networks of the plugin `segmenter`: a U-Net quantized for three runtimes, and torchvision's published weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from edgeopt.errors import RecipeError
from edgeopt.export.make import make_artifact
from edgeopt.networks.outputs import tensors
from edgeopt.options import TrainerSettings, to_json
from edgeopt.plugins.contexts import PassContext
from edgeopt.plugins.declarations import ExporterPlugin, PassPlugin
from edgeopt.plugins.registry import Registry
from edgeopt.progress import Silent
from edgeopt.recipe.lookup import resolve
from edgeopt.recipe.plan import make_plan
from edgeopt.recipe.read import read_recipe
from edgeopt.testing import tiny_data
from edgeopt.types import ModelState, Role, TrainingData
from edgeopt_segmentation.networks.build import build
from edgeopt_segmentation.options import SegmenterOptions
from edgeopt_segmentation.shapes import CLASSES, make_shapes
from edgeopt_segmentation.task import Segmentation
from edgeopt_torchvision.compat import import_torchvision

SHAPES = make_shapes(24, 32, 0).splits["train"]


@dataclasses.dataclass(frozen=True)
class DrawnSplit:
    """Drawn shapes with their masks, as wide again on the right, in as many channels as are asked for."""

    channels: int

    def __len__(self) -> int:
        return len(SHAPES)

    @property
    def targets(self) -> Any:
        return np.concatenate([SHAPES.masks, SHAPES.masks[::-1]], axis=2)

    def pixels(self, indices: Any) -> Any:
        wide = np.concatenate([SHAPES.images, SHAPES.images[::-1]], axis=2)[indices]
        return wide if self.channels == 3 else wide.mean(axis=3, keepdims=True).astype(np.uint8)


def drawn(channels: int) -> TrainingData:
    """Images of 32 × 64 px."""
    data = tiny_data(classes=len(CLASSES), image_size=(32, 64), channels=channels)  # type: ignore[arg-type]
    split = DrawnSplit(channels)
    return dataclasses.replace(
        data, classes=CLASSES, task=Segmentation(), train=split, calibration=split, validation=split
    )


def quantized(name: str, channels: int, registry: Registry, folder: Path, **options: Any) -> ModelState:
    """A U-Net of one level below its first, trained for a moment, in int8."""
    data = drawn(channels)
    torch.manual_seed(0)
    state = build(SegmenterOptions(arch="unet", width=4, depth=1), data)
    context = PassContext(data, TrainerSettings(accelerator="cpu", threads=1), 17, folder, Silent())
    for each, given in (("train", {"epochs": 2, "batch_size": 8, "learning_rate": 0.01}), (name, options)):
        use = resolve(PassPlugin, each, given, registry)
        state = use.plugin.apply(state, use.options, context)
    return state


@pytest.mark.parametrize(
    ("name", "channels", "runtimes"),
    [("qat", 1, ("executorch", "onnx", "tflite")), ("ptq", 3, ("onnx",))],
)
def test_a_small_unet_is_quantized_whole_and_its_files_answer_as_it(
    name: str, channels: int, runtimes: tuple[str, ...], registry: Registry, tmp_path: Path
) -> None:
    options = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3} if name == "qat" else {}
    state = quantized(name, channels, registry, tmp_path, **options)
    facts = state.history[-1].facts
    assert (
        facts["layers_in_float"] == [] and facts["layers_quantized"] == 7
    )  # two on each level, down and up, and the head
    images = state.preprocessing.normalize(DrawnSplit(channels).pixels(range(8)))
    assert images.shape == (8, channels, 32, 64)
    (expected,) = tensors(state.program.module()(torch.from_numpy(images)))
    task = Segmentation()
    for runtime in runtimes:
        use = resolve(ExporterPlugin, runtime, {}, registry)
        folder = tmp_path / runtime
        folder.mkdir()
        given = {"role": Role.OPTIMIZED, "recipe": {}, "calibration": DrawnSplit(channels), "has_self_test": False}
        artifact = make_artifact(use, state, folder, **given, progress=Silent(), seed=0)
        assert [each.name for each in artifact.card.outputs] == ["masks"]
        with use.plugin.opened(artifact.path, 1) as predictor:
            answers = np.concatenate([predictor.predict(image[None])[0] for image in images])
        assert task.agreement((answers,), (expected.detach().numpy(),)) > 0.97, runtime


def test_a_unet_has_the_depth_and_width_that_are_asked_for() -> None:
    data = drawn(1)
    found = {depth: build(SegmenterOptions(arch="unet", width=4, depth=depth), data) for depth in (1, 3, 5)}
    sizes = {depth: state.history[0].facts["parameters"] for depth, state in found.items()}
    assert sizes[1] < sizes[3] / 10 < sizes[5] / 100
    for depth, state in found.items():
        shapes = [each.shape for each in state.module.parameters() if each.dim() == 4]
        assert shapes[0] == (4, 1, 3, 3) and max(shape[0] for shape in shapes) == 4 * 2**depth
    assert "depth" not in to_json(SegmenterOptions(arch="unet"))  # recipes that do not ask keep their keys
    wider = build(SegmenterOptions(arch="unet", width=8, depth=1), data)
    assert wider.history[0].facts["parameters"] > 3 * sizes[1]


RECIPE = """\
schema = 1
name = "odd"

[dataset]
use = "shapes-masks"
image_size = [{height}, {width}]

[model]
use = "segmenter"
arch = "unet"
depth = 4

[[passes]]
use = "train"

[[exports]]
use = "onnx"
"""


@pytest.mark.parametrize(
    ("size", "fit"),
    [((96, 100), "image_size = 96 or image_size = [96, 112]"), ((8, 64), "image_size = [16, 64], or")],
)
def test_sides_that_do_not_divide_are_refused_with_those_that_fit(
    size: tuple[int, int], fit: str, registry: Registry, tmp_path: Path
) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(RECIPE.format(height=size[0], width=size[1]))
    with pytest.raises(RecipeError) as caught:
        make_plan(read_recipe(file), registry)
    said = str(caught.value)
    assert (
        f"{file}:6: a U-Net of depth 4 takes images whose sides are multiples of 16 px, not {size[0]} × {size[1]} px"
        in said
    )
    assert fit in said
    with pytest.raises(RecipeError, match="multiples of 16 px"):
        build(
            SegmenterOptions(arch="unet", depth=4),
            dataclasses.replace(drawn(3), preprocessing=tiny_data(image_size=size).preprocessing),
        )
    network = build(SegmenterOptions(arch="unet", width=4, depth=4), drawn(3)).module
    with pytest.raises(ValueError, match="multiples of 16 px, not 32 × 40 px"):
        network(torch.zeros(1, 3, 32, 40))
    file.write_text(RECIPE.format(height=96, width=112))
    make_plan(read_recipe(file), registry)


# ---- weights ---------------------------------------------------------------------------------------------------------

HEADS = {
    "lraspp_mobilenet_v3_large": ("classifier.low_classifier", "classifier.high_classifier"),
    "deeplabv3_mobilenet_v3_large": ("classifier.4",),
}


@pytest.mark.parametrize("arch", list(HEADS))
def test_published_weights_are_loaded_but_for_the_heads(
    arch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once from a file, once by name; DeepLabV3's have a head that only helped training, which is passed over."""
    torchvision = import_torchvision()
    torch.manual_seed(1)
    more = {"aux_loss": True} if arch.startswith("deeplab") else {}
    network = getattr(torchvision.models.segmentation, arch)(
        weights=None, weights_backbone=None, num_classes=21, **more
    )
    state = network.state_dict()
    file = tmp_path / "published.pth"
    torch.save(state, file)
    weights = torchvision.models.get_model_weights(arch)
    monkeypatch.setattr(weights, "get_state_dict", lambda *_, **__: state)
    data = tiny_data(classes=len(CLASSES), image_size=(32, 64), task=Segmentation())
    for name in (str(file), "DEFAULT"):
        made = build(SegmenterOptions(arch=arch, weights=name), data)
        own = made.module.state_dict()
        unlike = {each for each, value in own.items() if not torch.equal(value, state[each.removeprefix("network.")])}
        heads = {f"network.{head}" for head in HEADS[arch]}
        assert {each.rpartition(".")[0] for each in unlike} == heads == set(made.untrained)
        facts = made.history[0].facts
        assert facts["weights"] == name and "the head replaced for the classes" in str(facts["loaded"])
        assert ("passed over: aux_classifier" in str(facts["loaded"])) == bool(more)
        assert not made.history[0].warnings
    bright = dataclasses.replace(data.preprocessing, mean=(0.5,) * 3, std=(0.5,) * 3)
    (warning,) = (
        build(SegmenterOptions(arch=arch, weights="DEFAULT"), dataclasses.replace(data, preprocessing=bright))
        .history[0]
        .warnings
    )
    assert "were trained with mean" in warning


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arch": "unet", "weights": "DEFAULT"}, 'not "none", nor the path'),
        (
            {"arch": "lraspp_mobilenet_v3_large", "weights": "IMAGENET1K_V1"},
            '"DEFAULT" and "COCO_WITH_VOC_LABELS_V1" for lraspp',
        ),
        ({"arch": "lraspp_mobilenet_v3_large", "width": 8}, "width is of the U-Net"),
        ({"arch": "deeplabv3_mobilenet_v3_large", "depth": 2}, "depth is of the U-Net"),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SegmenterOptions(**options)
