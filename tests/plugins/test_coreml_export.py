"""Core ML's files: what is in a package, that it computes the program, what is refused, and what a Mac would do."""

from __future__ import annotations

import json
import platform
import sys
import zipfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mil_interpreter import Interpreted
from small_programs import CLASSES, SIZE, capture, float_net, images, odd_net, outputs, quantized
from torch import nn

from edgeopt.cards.reading import card_of
from edgeopt.errors import ExportError, NothingChangedError
from edgeopt.export.make import as_exported
from edgeopt.plugins import AcceleratorRequest, ExporterPlugin, ExportResult, Form, ModelState, Preprocessing, Verdict
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve
from edgeopt.tasks import TASKS
from edgeopt.testing.exporter import export_file
from edgeopt.testing.values import tiny_data, tiny_program
from edgeopt_coreml import predictor, tools
from edgeopt_coreml.package import CARD_KEY, SPEC, WEIGHTS, unpack
from edgeopt_coreml.predictor import CoreMlPredictor

REGISTRY = load_registry()
PLUGIN = REGISTRY.get(ExporterPlugin, "coreml")
LAYERS = {"stem.0", "block.0", "squeeze.1", "head"}


def state_of(program: torch.export.ExportedProgram, precision: str = "float32") -> ModelState:
    preprocessing = Preprocessing(SIZE, SIZE, SIZE)
    classes = tuple(f"class {number}" for number in range(CLASSES))
    task = TASKS["classification"]
    return ModelState(program, Form.PROGRAM, task, classes, preprocessing, precision=precision, batch_range=(1, 64))


def exported(state: ModelState, folder: Path, **options: Any) -> tuple[Path, ExportResult]:
    return export_file(resolve(ExporterPlugin, "coreml", options, REGISTRY), state, folder)


@pytest.fixture
def opened(monkeypatch):
    """Opens a file as on a Mac, with the interpreter in the place of Core ML."""
    monkeypatch.setattr(predictor, "load", Interpreted)
    monkeypatch.setattr(predictor, "not_run", lambda version: "")
    return lambda path: PLUGIN.opened(path, 1)


@pytest.fixture(scope="module")
def states() -> dict[str, ModelState]:
    program = capture(float_net())
    return {"float32": state_of(program), "int8": state_of(quantized(program), "int8")}


@pytest.fixture(scope="module")
def made(states, tmp_path_factory):
    """A file of one of the states and what the exporter says of it, each made once."""

    @cache
    def make(name: str, /, **options: Any) -> tuple[Path, ExportResult]:
        return exported(states[name], tmp_path_factory.mktemp("coreml"), **options)

    return make


def difference(opened: Any, path: Path, state: ModelState) -> float:
    """The largest, as a share of the range of the program's logits."""
    batch = images(20)
    expected = outputs(state.program, batch).numpy()
    with opened(path) as file:
        (logits,) = file.predict(batch.numpy())
    return float(np.abs(logits - expected).max() / np.ptp(expected))


@pytest.mark.parametrize(
    ("precision", "options", "tolerance"),
    [
        ("float32", {"precision": "float16"}, 5e-3),
        ("float32", {"precision": "weight-only-int8"}, 0.03),
        ("int8", {"arithmetic": "float32"}, 1e-6),  # Core ML's roundings are the program's own
        ("int8", {}, 0.03),
    ],
)
def test_a_file_computes_its_program(states, made, precision, options, tolerance, opened):
    path, result = made(precision, **options)
    assert difference(opened, path, states[precision]) <= tolerance
    facts = result.facts
    is_float = "float" in options.get("precision", "")
    assert (facts["layers"], facts["layers_quantized"]) == (4, 0 if is_float else 4)
    assert facts["arithmetic"] == options.get("arithmetic", "float16")
    assert result.precision == options.get("precision", "")
    assert result.not_run == tools.not_run(8)


def test_weights_of_four_bits_take_four_where_the_system_has_such_a_type(tmp_path):
    """A layer of 64 × 64 × 9 weights, of a byte each, and of half a one from iOS 18 on."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 64, 1), nn.Conv2d(64, 64, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    state = state_of(quantized(capture(net.eval()), weight_bits=4), "int8")
    for target, size in {"iOS17": 1.0, "iOS18": 0.5}.items():
        (tmp_path / target).mkdir()
        path, _ = exported(state, tmp_path / target, deployment_target=target)
        with zipfile.ZipFile(path) as archive:
            assert archive.getinfo(WEIGHTS).file_size == pytest.approx(size * 64 * (64 * 9 + 3), rel=0.1)


def test_layers_in_float_are_named(states, tmp_path):
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.int8 = states["int8"].program.module(check_guards=False)
            self.first = nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.int8(self.first(x))

    _, result = exported(state_of(capture(Mixed()), "int8"), tmp_path)
    assert result.outside == ("first",)
    assert (result.facts["layers"], result.facts["layers_quantized"]) == (5, 4)


def test_a_package_is_what_xcode_and_coremltools_open(states, made, tmp_path):
    path, result = made("int8")
    folder = tmp_path / "model.mlpackage"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    manifest = json.loads((folder / "Manifest.json").read_text())
    items = manifest["itemInfoEntries"].values()
    assert all((folder / "Data" / item["path"]).exists() for item in items)
    assert manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["name"] == "model.mlmodel"
    spec = tools.coremltools.models.MLModel(str(folder), skip_model_load=True).get_spec()
    assert [each.name for each in spec.description.input] == ["input"]
    assert [each.name for each in spec.description.output] == ["logits"]
    assert spec.specificationVersion == tools.coremltools.target.iOS17.value
    told = spec.description.metadata
    card = card_of(path)
    assert card.to_json() == told.userDefined[CARD_KEY] == (folder / "Data/edgeopt/card.json").read_text()
    assert card_of(folder) == card
    assert (card.classes, card.precision, card.input, card.outputs) == (
        states["int8"].classes,
        "int8",
        result.input,
        result.outputs,
    )
    assert not any("date" in key for key in told.userDefined)
    assert "class 4" in told.shortDescription
    assert "0.485" in spec.description.input[0].shortDescription


def test_grey_pixels_come_as_a_grey_image(opened, tmp_path):
    """Those of three channels are in the contract."""
    state = tiny_program(tiny_data(channels=1))
    path, result = exported(state, tmp_path, input={"kind": "uint8-nhwc"})
    assert (result.input.holds, result.input.shape) == ("pixels", (1, 32, 32, 1))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 1), dtype=np.uint8)
    expected = outputs(state.program, torch.from_numpy(state.preprocessing.normalize(pixels))).numpy()
    with opened(path) as file:
        assert file.input_info == result.input
        np.testing.assert_allclose(file.predict(pixels)[0], expected, atol=1e-4)


def test_classes_of_places_are_integers_of_four_bytes(opened, tmp_path):
    class Places(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.ConvTranspose2d(3, 4, 4, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = nn.functional.interpolate(self.up(x), scale_factor=0.5, mode="bilinear", align_corners=False)
            return x.argmax(1)

    torch.manual_seed(0)
    state = replace(state_of(capture(Places().eval())), output_names=("classes",))
    path, result = exported(state, tmp_path)
    assert [(each.name, each.dtype, each.shape) for each in result.outputs] == [("classes", "int32", (1, SIZE, SIZE))]
    with opened(path) as file:
        (found,) = file.predict(images(1).numpy())
    assert (found == outputs(state.program, images(1)).numpy()).mean() > 0.999


def test_an_operator_that_core_ml_has_not_is_named_before_and_after_training(tmp_path):
    state = state_of(capture(odd_net("determinant")))
    (problem,) = PLUGIN.refuses(state, None)
    assert "aten.linalg_det.default" in problem.message
    assert "(in block.odd)" in problem.message
    with pytest.raises(ExportError, match=r"in block\.odd"):
        exported(state, tmp_path)
    use = resolve(ExporterPlugin, "coreml", {}, REGISTRY)
    (accelerator,) = PLUGIN.accelerators
    answer = accelerator.ask(AcceleratorRequest(as_exported(use, state)[0], use.options, lambda: tmp_path))
    refused = [each for each in answer.operators if each.verdict is Verdict.REFUSED]
    assert answer.islands == 0
    assert {each.place for each in refused} == {"block.odd"}


def test_core_ml_takes_the_whole_of_a_network_or_none(states):
    assert list(PLUGIN.refuses(states["float32"], None)) == []
    (accelerator,) = PLUGIN.accelerators
    answer = accelerator.ask(AcceleratorRequest(states["int8"], None, Path))
    assert answer.islands == 1
    assert {each.verdict for each in answer.operators} == {Verdict.RUNS}
    assert "squeeze.1" in " ".join(each.place for each in answer.operators)


def test_what_a_file_cannot_be_is_refused(states, tmp_path):
    with pytest.raises(ExportError, match="made of a float program") as caught:
        exported(states["int8"], tmp_path, precision="float16")
    assert caught.value.problems[0].option == "precision"
    with pytest.raises(ExportError, match="those of this program take 4"):
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        exported(state_of(quantized(capture(net.eval()), activation_bits=4), "int8"), tmp_path)
    with pytest.raises(NothingChangedError, match="no layer"):
        exported(replace(states["float32"], precision="int8"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_weight_that_float16_does_not_hold_is_refused(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        net[0].weight *= 1e7
    with pytest.raises(ExportError, match=r"0\.weight has values that are too large"):
        exported(state_of(capture(net.eval())), tmp_path, precision="float16")


# ---- what machine it is --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "version", "said"),
    [
        ("linux", "", "has neither"),
        ("darwin", "13.6", "macOS 14 or later, and this is macOS 13.6"),
        ("darwin", "15.0", ""),
    ],
)
def test_a_machine_without_core_ml_says_so(monkeypatch, system, version, said):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "mac_ver", lambda: (version, ("", "", ""), ""))
    assert tools.not_run(8).endswith(said)
    assert bool(tools.not_run(8)) == bool(said)


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML is here")
def test_a_file_is_not_opened_where_core_ml_is_not(made):
    path, _ = made("int8")
    with pytest.raises(ExportError, match="has neither") as caught, PLUGIN.opened(path, 1):
        pass
    assert "Mac" in str(caught.value.problems[0].hint)


def test_what_core_ml_says_of_a_file_that_it_does_not_open_is_told(made, monkeypatch):
    """coremltools keeps the reason of such a model, and would tell it at the first answer."""
    path, _ = made("int8")
    monkeypatch.setattr(predictor, "not_run", lambda version: "")
    failed = SimpleNamespace(__proxy__=None, _framework_error="validator error: no such operator")
    monkeypatch.setattr(tools.coremltools.models, "MLModel", lambda *given, **named: failed)
    with pytest.raises(ValueError, match="no such operator"):
        CoreMlPredictor(path)


def test_half_a_file_is_refused_as_such(made, tmp_path):
    path, content = tmp_path / "half.mlpackage.zip", made("int8")[0].read_bytes()
    for damaged in (content[: len(content) // 2], b"", content.replace(b"logits", b"logist")):
        path.write_bytes(damaged)
        with pytest.raises(ExportError, match=r"is not a \.mlpackage"), PLUGIN.opened(path, 1):
            pass


def test_a_zip_of_something_else_is_refused(tmp_path):
    path = tmp_path / "x.mlpackage.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match=r"is not a \.mlpackage"):
        unpack(path, tmp_path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(SPEC, b"")
    with pytest.raises(ValueError, match="another version or kind"):
        unpack(path, tmp_path)
