"""timm's networks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from edgeopt.errors import CheckpointError, RecipeError
from edgeopt.options import Augmentation
from edgeopt.preprocessing import Preprocessing
from edgeopt.types import ModelState, TrainingData
from edgeopt_timm.models import _import_timm
from edgeopt_timm.options import TimmOptions
from edgeopt_timm.plugin import build_model, fingerprint_model


def data(image_size: int = 64, classes: int = 7, **preprocessing: Any) -> TrainingData:
    nothing: Any = None
    sizes = Preprocessing(image_size, image_size, image_size, **preprocessing)
    return TrainingData(tuple("abcdefghijk"[:classes]), sizes, nothing, nothing, nothing, "", Augmentation())


def build(arch: str, given: TrainingData | None = None, **options: Any) -> ModelState:
    torch.manual_seed(5)
    return build_model(TimmOptions(arch=arch, **options), given or data())


def error(kind: type[Exception], action: Callable[[], Any]) -> str:
    with pytest.raises(kind) as caught:
        action()
    return str(caught.value)


@pytest.mark.parametrize(
    "arch",
    ["mobilenetv3_small_050", "resnet10t", "tf_efficientnet_lite0", "vit_tiny_patch16_224", "mobilenetv4_conv_small"],
)
def test_networks_of_several_families(arch: str) -> None:
    state = build(arch)
    with torch.no_grad():
        assert state.model.eval()(torch.rand(2, 3, 64, 64)).shape == (2, 7)
    assert {
        module.momentum for module in state.model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
    } <= {0.1}
    assert state.classes == tuple("abcdefg") and state.history[0].facts["parameters"] > 0


def test_a_network_of_wide_grey_images_is_asked_for_one_channel() -> None:
    wide = Preprocessing((48, 96), (48, 96), (48, 96), (0.459,), (0.226,), channel_order="grey")
    state = build("mobilenetv3_small_050", replace(data(), preprocessing=wide))
    assert state.history[0].facts["first_convolution"] == "conv_stem, for 1 channel"
    with torch.no_grad():
        assert state.module.eval()(torch.rand(2, 1, 48, 96)).shape == (2, 7)


def test_the_build_repeats_with_torchs_seed() -> None:
    first, again = (build("mobilenetv3_small_050").model.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize(
    ("arch", "parts"),
    [
        ("mobilenetv3_smal_050", ["no architecture 'mobilenetv3_smal_050'", "'mobilenetv3_small_050'"]),
        ("hf-hub:somebody/something", ["no architecture"]),
        ("local-dir:/tmp", ["no architecture"]),
        ("resnet18.a1_in1", ["no weights 'a1_in1' for resnet18", "'a1_in1k'"]),
    ],
)
def test_names_that_timm_does_not_list(arch: str, parts: list[str]) -> None:
    text = error(RecipeError, lambda: build(arch))
    for part in parts:
        assert part in text


def test_a_tag_may_follow_the_name() -> None:
    assert build("resnet10t.c3_in1k").model.num_classes == 7


def test_a_size_that_a_network_does_not_take() -> None:
    text = error(RecipeError, lambda: build("vit_tiny_patch16_224", data(8)))
    assert "vit_tiny_patch16_224 does not take images of 8 px" in text


def test_a_local_state_dict_fills_all_but_the_head(tmp_path: Path) -> None:
    torch.manual_seed(1)
    source = _import_timm().create_model("mobilenetv3_small_050", num_classes=1000)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    state = build("mobilenetv3_small_050", weights=str(tmp_path / "w.pth"))
    for name, value in state.model.state_dict().items():
        assert name.startswith("classifier") or torch.equal(value, source.state_dict()[name]), name
    assert "head replaced" in state.history[0].facts["loaded"]
    assert state.untrained
    text = error(CheckpointError, lambda: build("resnet10t", weights=str(tmp_path / "w.pth")))
    assert "does not fit the model" in text


def test_weights_are_checked_early(tmp_path: Path) -> None:
    assert "did you mean 'pretrained'" in error(ValidationError, lambda: TimmOptions(arch="a", weights="pretraind"))
    gone = TimmOptions(arch="resnet10t", weights=str(tmp_path / "gone.pth"))
    assert "does not exist" in error(CheckpointError, lambda: fingerprint_model(gone))


def test_pretrained_weights_are_asked_of_timm_and_failures_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = _import_timm()
    create = timm.create_model
    asked: list[tuple[str, bool]] = []

    def from_cache(arch: str, pretrained: bool, **arguments: Any) -> nn.Module:
        asked.append((arch, pretrained))
        model: nn.Module = create(arch, pretrained=False, **arguments)
        return model

    monkeypatch.setattr(timm, "create_model", from_cache)
    state = build("resnet10t", data(64, mean=(0.1, 0.1, 0.1)), weights="pretrained")
    assert asked == [("resnet10t", True)]
    assert "were trained with mean" in state.history[0].warnings[0]

    def offline(*_: Any, **__: Any) -> nn.Module:
        raise FileNotFoundError("cannot reach the hub")

    monkeypatch.setattr(timm, "create_model", offline)
    text = error(CheckpointError, lambda: build("resnet10t", weights="pretrained"))
    assert "weights of resnet10t cannot be downloaded: cannot reach the hub" in text and "timm/resnet10t" in text
    text = error(CheckpointError, lambda: build("resnet50_mlp", weights="pretrained"))
    assert "no pretrained weights for resnet50_mlp" in text
