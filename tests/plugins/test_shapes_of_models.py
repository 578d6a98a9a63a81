"""Networks for images of any shape and of one channel, and what is said of those that take none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import edgeopt
from edgeopt.cards.reading import card_of
from edgeopt.errors import RecipeError
from edgeopt.export.pixels_input import take_pixels
from edgeopt.export.self_test import images_of
from edgeopt.options import Augmentation
from edgeopt.plugins import ExporterPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.preprocessing import Preprocessing
from edgeopt.recipe.lookup import resolve
from edgeopt.testing.exporter import export_file
from edgeopt.testing.values import tiny_data, tiny_program
from edgeopt.types import ModelState, TrainingData
from edgeopt_torchvision.options import TorchvisionOptions
from edgeopt_torchvision.plugin import build_model

WIDE = Preprocessing((48, 96), (48, 96), (48, 96), (0.459,), (0.226,), channel_order="grey")


def data(preprocessing: Preprocessing = WIDE) -> TrainingData:
    nothing: Any = None
    return TrainingData(tuple("abc"), preprocessing, nothing, nothing, nothing, "", Augmentation())


def build(arch: str, **options: Any) -> ModelState:
    torch.manual_seed(5)
    return build_model(TorchvisionOptions(arch=arch, **options), data())


@pytest.mark.parametrize("arch", ["mobilenet_v3_small", "squeezenet1_1"])
def test_a_network_of_grey_images_begins_with_one_channel(arch: str) -> None:
    state = build(arch)
    first = next(each for each in state.module.modules() if isinstance(each, nn.Conv2d))
    assert first.in_channels == 1
    assert "for 1 channel" in state.history[0].facts["first_convolution"]
    with torch.no_grad():
        assert state.module.eval()(torch.rand(2, 1, 48, 96)).shape == (2, 3)
    with torch.no_grad(), pytest.raises(RuntimeError):
        state.module(torch.rand(2, 3, 48, 96))


def test_weights_of_colours_are_summed_and_answer_alike_for_grey(tmp_path: Path) -> None:
    """A grey image in three channels gives what it gives in one."""
    torch.manual_seed(1)
    square = Preprocessing(64, 64, 64)
    coloured = build_model(TorchvisionOptions(arch="mobilenet_v3_small"), data(square)).module.eval()
    torch.save(coloured.state_dict(), tmp_path / "colours.pth")
    state = build("mobilenet_v3_small", weights=str(tmp_path / "colours.pth"))
    assert "features.0.0 summed over red, green and blue" in state.history[0].facts["loaded"]
    image = torch.rand(2, 1, 48, 96)
    with torch.no_grad():
        torch.testing.assert_close(state.module.eval()(image), coloured(image.repeat(1, 3, 1, 1)), atol=1e-4, rtol=1e-4)


RECIPE = """schema = 1
name = "x"
[dataset]
use = "shapes"
image_size = [48, 192]
channels = 1
[model]
use = "{use}"
arch = "{arch}"
{more}
[[exports]]
use = "{to}"
"""


@pytest.mark.parametrize(
    ("use", "arch", "more", "to", "line", "said"),
    [
        ("torchvision", "vit_b_16", "", "onnx", 5, "vit_b_16 takes square images alone, and image_size is 48 × 192 px"),
        ("torchvision", "maxvit_t", "", "onnx", 5, "takes images whose sides are multiples of 224 px"),
        ("keras-applications", "MobileNetV2", 'weights = "imagenet"', "keras-tflite", 6, "take colours"),
    ],
)
def test_check_names_the_line_of_what_a_model_does_not_take(
    use: str, arch: str, more: str, to: str, line: int, said: str, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(use=use, arch=arch, more=more, to=to))
    with pytest.raises(RecipeError) as caught:
        edgeopt.check(recipe)
    assert f"recipe.toml:{line}: " in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(("exporter", "pixels"), [("onnx", True), ("tflite", False), ("tflite", True)])
def test_files_of_wide_grey_images_answer_as_their_program_and_carry_a_card(
    exporter: str, pixels: bool, tmp_path: Path
) -> None:
    state = tiny_program(tiny_data(image_size=(16, 40), channels=1))
    use = resolve(ExporterPlugin, exporter, {}, load_registry())
    path, result = export_file(use, take_pixels(state) if pixels else state, tmp_path)
    shown = np.random.default_rng(0).integers(0, 256, (2, *state.preprocessing.shape), dtype=np.uint8)
    floats = state.preprocessing.normalize(shown)
    with torch.no_grad():
        expected = state.program.module()(torch.from_numpy(floats)).numpy()
    given = shown if pixels else floats
    assert sorted(side for side in result.input.shape[1:] if side != 1) == [16, 40]
    with use.plugin.opened(path, 1) as predictor:
        answers = np.concatenate([predictor.predict(given[index : index + 1])[0] for index in range(2)])
    np.testing.assert_allclose(answers, expected, atol=1e-4)
    card = card_of(path)
    assert card.self_test is not None
    assert card.self_test.vectors[0].pixels[0][2:] == (int(images_of(card).images[0, 2, 6, 0]),)
