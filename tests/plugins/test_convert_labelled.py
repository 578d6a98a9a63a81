"""`edgeopt convert` with labelled images: how often both sides are right, whose names go into the file, what is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from test_convert import edgeopt
from torch import nn

from edgeopt.conversion.labelled import Answered, LabelledAnswers, labelling
from edgeopt.conversion.plan import ConversionRequest, convert
from edgeopt.errors import ExportError
from edgeopt.tasks.base import Score
from edgeopt.tasks.statistics import paired, wilson_interval
from edgeopt_tflite.metadata import read_metadata

pytestmark = pytest.mark.usefixtures("imports_done_once")

SIZE = 16
CLASSES = ("blue", "green", "red")
COLOURS = {"blue": (30, 30, 220), "green": (30, 220, 30), "red": (220, 30, 30)}
CHANNELS = (2, 1, 0)  # of each class, in the order of the classes


class Colours(nn.Module):
    """Tells by the brightest channel, of values that are divided by `by` first: fed otherwise, it sees nothing."""

    def __init__(self, by: float = 1.0, channels: tuple[int, ...] = CHANNELS) -> None:
        super().__init__()
        self.by = by
        self.conv, self.head = nn.Conv2d(3, 3, 1), nn.Linear(3, len(channels))
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(3).reshape(3, 3, 1, 1))
            self.conv.bias.fill_(-0.3)
            self.head.weight.copy_(10 * torch.eye(3)[list(channels)])
            self.head.bias.copy_(torch.linspace(0.2, 0.0, len(channels)))

    def forward(self, images):
        return self.head(self.conv(images / self.by).relu().mean((2, 3)))


KERAS = """
import sys
import numpy as np
import keras
from keras import layers as L
given = keras.Input((16, 16, 3))
hidden = L.Conv2D(3, 1, activation="relu", name="conv")(L.Rescaling(1 / 255)(given))
network = keras.Model(given, L.Dense(3, activation="softmax", name="head")(L.GlobalAveragePooling2D()(hidden)))
network.get_layer("conv").set_weights([np.eye(3).reshape(1, 1, 3, 3), np.full(3, -0.3)])
network.get_layer("head").set_weights([10 * np.eye(3)[[2, 1, 0]].T, np.array([0.2, 0.1, 0.0])])
network.save(sys.argv[1])
"""


def write_pt2(path: Path, module: nn.Module) -> Path:
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},)
    example = (torch.randn(2, 3, SIZE, SIZE),)
    torch.export.save(torch.export.export(module.eval(), example, dynamic_shapes=shapes), path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / "colours" / name).mkdir(parents=True)
        for index in range(40):
            noise = rng.integers(-25, 25, (SIZE, SIZE, 3))
            image = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(image).save(root / "colours" / name / f"{index}.png")
    (root / "colours" / "red" / "phone.HEIC").write_bytes(b"\0" * 64)
    return root


def request(source: Path, folder: Path, *overrides: str, to: str = "onnx") -> ConversionRequest:
    data = f"dataset.path={folder / 'colours'}"
    return ConversionRequest(str(source), to, dataset="image-folder", overrides=(data, *overrides))


UNIT = ("source.mean=[0, 0, 0]", "source.std=[1, 1, 1]")


def card_of(path: Path) -> dict[str, object]:
    held = {each.key: each.value for each in onnx.load(path, load_external_data=False).metadata_props}
    return next(json.loads(value) for value in held.values() if '"preprocessing"' in value)


def test_both_sides_are_counted_and_the_file_has_the_names_of_the_data_set(folder, tmp_path):
    result = convert(request(write_pt2(tmp_path / "net.pt2", Colours()), folder, *UNIT), tmp_path / "net.onnx")
    assert result.labelled is not None
    assert result.labelled.source.score.value == result.labelled.file.score.value == 1.0
    assert result.labelled.source.score.count == result.images > 15
    assert result.verdicts == ()
    assert card_of(result.path)["classes"] == list(CLASSES)
    assert any(".heic" in warning for warning in result.warnings), "what preparing the data set warned of"


def test_a_network_that_wants_pixels_is_not_converted_as_if_it_did_not(folder, tmp_path):
    """README's own line, on a network with Rescaling inside."""
    subprocess.run([sys.executable, "-c", KERAS, str(tmp_path / "model.keras")], check=True, capture_output=True)
    line = ["model.keras", "--to", "tflite", "--set", "export.precision=int8", "--dataset", "image-folder"]
    line += ["--set", f"dataset.path={folder / 'colours'}"]
    done = edgeopt(*line, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "model.keras answers 'blue' for all of 1" in done.stderr
    assert "right for 100.0 % of them. Nothing was written" in done.stderr
    assert "add --set source.scale=pixels" in done.stderr
    assert not (tmp_path / "model.tflite").exists()
    done = edgeopt(*line, "--set", "source.scale=pixels", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "right answers       source 100.0 %" in done.stdout
    assert read_metadata(tmp_path / "model.tflite").card["classes"] == list(CLASSES)
    unlabelled = edgeopt("model.keras", "--to", "onnx", cwd=tmp_path)
    assert "takes pixels, 0..255, and it gets images that are normalized" in unlabelled.stdout


def test_a_reader_without_a_scale_is_told_mean_and_deviation(folder, tmp_path):
    source = write_pt2(tmp_path / "net.pt2", Colours(by=255.0))
    with pytest.raises(ExportError, match="for all of") as caught:
        convert(request(source, folder), tmp_path / "net.onnx")
    hint = caught.value.problems[0].hint or ""
    assert hint.startswith("add --set source.mean=[0.0,0.0,0.0] --set source.std=[0.00392156862745098,")
    overrides = [word for word in hint.split() if word.startswith("source.")]
    result = convert(request(source, folder, *overrides), tmp_path / "net.onnx")
    assert result.labelled is not None
    assert result.labelled.file.score.value == 1.0


def test_a_model_that_guesses_is_told_and_does_not_take_the_names(folder, tmp_path):
    torch.manual_seed(0)
    blind = nn.Sequential(nn.AvgPool2d(SIZE), nn.Flatten(), nn.Linear(3, 3))
    with torch.no_grad():
        blind[2].weight.zero_()
        blind[2].bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
    result = convert(request(write_pt2(tmp_path / "net.pt2", blind), folder), tmp_path / "net.onnx")
    (said,) = result.verdicts
    assert said.startswith("net.pt2 answers 'green' for all of")
    assert "not trained for 'blue', 'green', 'red', which are not written into the file" in said
    assert card_of(result.path)["classes"] == ["0", "1", "2"]


def test_outputs_in_another_order_are_told_with_what_to_write(folder, tmp_path):
    source = write_pt2(tmp_path / "net.pt2", Colours(channels=(0, 1, 2)))
    result = convert(request(source, folder, *UNIT), tmp_path / "net.onnx")
    (said,) = result.verdicts
    assert """--set 'source.classes=["red", "green", "blue"]' it is right for 100.0 %""" in said
    assert card_of(result.path)["classes"] == ["0", "1", "2"]
    named = request(source, folder, *UNIT, 'source.classes=["red", "green", "blue"]')
    result = convert(named, tmp_path / "named.onnx")
    assert result.verdicts == ()
    assert result.labelled is not None
    assert result.labelled.source.score.value == 1.0


def test_images_of_other_classes_are_compared_and_not_counted(folder, tmp_path):
    source = write_pt2(tmp_path / "net.pt2", Colours(channels=(2, 1, 0, 0)))
    done = edgeopt(
        *(str(source), "--to", "onnx", "--dataset", "image-folder", "--set", f"dataset.path={folder / 'colours'}"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "not known: the model has 4 outputs without names, and the data set 3 classes" in " ".join(
        done.stdout.split()
    )


def test_outputs_and_classes_go_together_by_name_or_by_order():
    assert labelling(("0", "1"), ("10", "9")).outputs == (0, 1)
    assert labelling(("dog", "cat", "cow"), ("cat", "dog")).outputs == (1, 0)
    assert "'emu'" in labelling(("dog", "cat"), ("cat", "emu")).why_not


def side(right: int, count: int, doubt: str = "") -> Answered:
    return Answered(Score(right / count, wilson_interval(right, count), count), doubt)


def test_a_file_that_loses_answers_is_told_and_one_that_tells_nothing_apart_is_refused():
    loss = LabelledAnswers(side(96, 100), side(73, 100), paired(100, 24, 1))
    (said,) = loss.verdicts
    assert said.startswith(
        "the file is right for 73.0 % of the images, its source for 96.0 %: 24 images lost, 1 gained"
    )
    assert said.endswith("p < 0.001; this is a loss, not chance")
    assert not loss.is_spoiled
    assert LabelledAnswers(side(96, 100), side(96, 100), paired(100, 1, 1)).verdicts == ()
    assert LabelledAnswers(
        side(96, 100), side(33, 100, "answers 'blue' for all of 100 images"), paired(100, 63, 0)
    ).is_spoiled
    assert not LabelledAnswers(side(33, 100, "guesses"), side(33, 100, "guesses"), paired(100, 0, 0)).is_spoiled


def test_a_file_that_was_spoiled_is_not_written(folder, tmp_path):
    """By a pass of the user's own that makes one class of all; its float file differs, as its passes meant it to."""
    (tmp_path / "spoil.py").write_text(SPOILS)
    source = write_pt2(tmp_path / "net.pt2", Colours())
    asked = request(source, folder, *UNIT)
    asked = ConversionRequest(
        asked.source, "onnx", ("spoil",), asked.dataset, asked.overrides, (str(tmp_path / "spoil.py"),)
    )
    with pytest.raises(ExportError, match=r"answers 'blue' for all of .* net\.pt2 is right for 100\.0 %"):
        convert(asked, tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()


SPOILS = """
import copy
import torch
from edgeopt.plugins import Form, Options, PassPlugin, PassRecord, hookimpl

def spoil(state, options, context):
    module = copy.deepcopy(state.module)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.mul_(1.0 if name.endswith("head.bias") else 0.0)
    return state.after(PassRecord("spoil", {"weights_removed": 1}, warnings=("spoiled",)), module)

@hookimpl
def edgeopt_passes():
    yield PassPlugin("spoil", "Spoils.", Options, apply=spoil, accepts=Form.MODULE, produces=Form.MODULE)
"""
