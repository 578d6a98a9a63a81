"""torchvision's networks: every architecture gets a head for the classes, and weights go where they belong."""

import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.overrides import TorchFunctionMode

from edgeopt.errors import CheckpointError, RecipeError
from edgeopt.networks.checkpoints import StateDict, load_state
from edgeopt.networks.heads import find_head
from edgeopt.options import Augmentation
from edgeopt.preprocessing import Preprocessing
from edgeopt.types import Form, ModelState, TrainingData
from edgeopt_torchvision.compat import import_torchvision
from edgeopt_torchvision.models import _adapted
from edgeopt_torchvision.options import TorchvisionOptions
from edgeopt_torchvision.plugin import build_model, fingerprint_model
from edgeopt_torchvision.weights_names import WEIGHTS

#: One of each family, the smallest: shapes of these are computed through and through.
FAMILIES = [
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "resnet18",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "squeezenet1_0",
    "squeezenet1_1",
    "swin_t",
    "swin_v2_t",
    "vgg11",
    "vgg11_bn",
    "vit_b_32",
]


class ParametersOnMeta(TorchFunctionMode):
    """Parameters without memory: the largest networks have 645 million of them."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function in (torch.empty, torch.ones, torch.zeros):
            kwargs["device"] = "meta"
        return function(*args, **kwargs)


def data(image_size: int = 224, classes: int = 7, **preprocessing: Any) -> TrainingData:
    nothing: Any = None
    sizes = Preprocessing(image_size, image_size, image_size, **preprocessing)
    return TrainingData(tuple("abcdefghijk"[:classes]), sizes, nothing, nothing, nothing, "", Augmentation())


def build(arch: str, given: TrainingData | None = None, **options: Any) -> ModelState:
    torch.manual_seed(5)
    return build_model(TorchvisionOptions(arch=arch, **options), given or data(64))


def error(kind: type[Exception], action: Callable[[], Any]) -> str:
    with pytest.raises(kind) as caught:
        action()
    return str(caught.value)


# ---- architectures -------------------------------------------------------------------------------------------------


def test_the_names_are_those_that_torchvision_lists() -> None:
    models = import_torchvision().models
    assert list(WEIGHTS) == models.list_models(module=models)
    for arch, names in WEIGHTS.items():
        assert names == tuple(weights.name for weights in models.get_model_weights(arch)), arch


@pytest.mark.parametrize("arch", FAMILIES)
def test_each_family_gives_logits_for_the_classes(arch: str) -> None:
    with ParametersOnMeta():
        state = build(arch, data(224))  # raises unless 2 images give (2, 7)
    head = state.model.get_submodule(find_head(state.model, 7))
    assert getattr(head, "out_features", None) == 7 or head.out_channels == 7


def test_each_architecture_has_a_head_for_the_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeopt_torchvision.models.require_input", lambda *_, **__: None)
    for arch in sorted(set(WEIGHTS) - set(FAMILIES)):
        size = 518 if arch == "vit_h_14" else 224
        with ParametersOnMeta():
            model = build(arch, data(size)).model
        outputs = [
            module.out_features if isinstance(module, nn.Linear) else module.out_channels
            for module in model.modules()
            if isinstance(module, nn.Linear | nn.Conv2d)
        ]
        assert outputs[-1] == 7, arch
        assert 1000 not in outputs, arch


@pytest.mark.parametrize(
    ("arch", "size"), [("mobilenet_v3_small", 32), ("squeezenet1_1", 32), ("shufflenet_v2_x0_5", 32)]
)
def test_a_built_network_runs_and_can_be_saved(arch: str, size: int) -> None:
    state = build(arch, data(size))
    assert state.form is Form.MODULE and state.classes == tuple("abcdefg") and state.input_shape == (3, size, size)
    assert state.model.training
    model = pickle.loads(pickle.dumps(state.model.eval()))
    with torch.no_grad():
        images = torch.rand(3, 3, size, size)
        assert torch.equal(model(images), state.model(images))
        assert model(images).shape == (3, 7)


def test_the_build_repeats_with_torchs_seed() -> None:
    first, again = (build("mobilenet_v3_small").model.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_batch_norm_momentum_is_set_everywhere() -> None:
    def momenta(**options: Any) -> set[float | None]:
        model = build("mobilenet_v3_small", **options).model
        return {module.momentum for module in model.modules() if isinstance(module, nn.BatchNorm2d)}

    assert momenta() == {0.1}
    assert momenta(batch_norm_momentum=0.05) == {0.05}
    assert build("mobilenet_v3_small").history[0].facts["batch_norms"] == 34


@pytest.mark.parametrize(
    ("arch", "blocks"), [("resnet18", 8), ("resnet50", 16), ("resnext50_32x4d", 16), ("wide_resnet50_2", 16)]
)
def test_residual_blocks_start_as_nothing(arch: str, blocks: int) -> None:
    def silent(**options: Any) -> int:
        norms = (each for each in build(arch, **options).model.modules() if isinstance(each, nn.BatchNorm2d))
        return sum(not each.weight.any() for each in norms)

    assert silent() == 0
    assert silent(zero_init_residual=True) == blocks


@pytest.mark.parametrize(
    ("arch", "size", "hint"),
    [
        ("alexnet", 32, "63 or more"),
        ("vgg11", 16, "32 or more"),
        ("squeezenet1_1", 8, "17 or more"),
        ("vit_b_16", 100, "a multiple of 16"),
        ("maxvit_t", 100, "a multiple of 224"),
    ],
)
def test_images_of_a_size_that_an_architecture_does_not_take(arch: str, size: int, hint: str) -> None:
    with ParametersOnMeta():
        text = error(RecipeError, lambda: build(arch, data(size)))
    assert f"{arch} does not take images of {size} px" in text and hint in text


# ---- options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"arch": "mobilenet_v3_smal"}, ["no architecture 'mobilenet_v3_smal'", "did you mean 'mobilenet_v3_small'"]),
        ({"arch": "resnet18", "weights": "IMAGENET1K_V2"}, ["resnet18 has no weights", "'IMAGENET1K_V1'"]),
        ({"arch": "resnet18", "weights": "default"}, ["resnet18 has no weights 'default'"]),
        ({"arch": "resnet18", "batch_norm_momentum": 0}, ["greater than 0"]),
        ({"arch": "vgg11", "zero_init_residual": True}, ["vgg11 has no zero_init_residual", "ResNet"]),
        (
            {"arch": "resnet18", "weights": "DEFAULT", "zero_init_residual": True},
            ["weights replace", "leave one of them out"],
        ),
    ],
)
def test_wrong_options_are_found_by_check(options: dict[str, Any], parts: list[str]) -> None:
    text = error(ValidationError, lambda: TorchvisionOptions(**options))
    for part in parts:
        assert part in text


def test_a_missing_checkpoint_is_found_by_check(tmp_path: Path) -> None:
    gone = TorchvisionOptions(arch="resnet18", weights=str(tmp_path / "gone.pth"))
    assert "gone.pth does not exist" in error(CheckpointError, lambda: fingerprint_model(gone))
    assert fingerprint_model(TorchvisionOptions(arch="resnet18", weights="DEFAULT")) == ""


def test_the_declarations_import_nothing_heavy() -> None:
    code = "import sys; import edgeopt_torchvision.plugin, edgeopt_timm.plugin, edgeopt_huggingface.plugin, edgeopt_images.plugin\n"
    code += "assert not {'torch', 'torchvision', 'timm', 'datasets', 'numpy', 'PIL', 'sklearn'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# ---- weights -------------------------------------------------------------------------------------------------------


def torchvision_model(arch: str, **arguments: Any) -> nn.Module:
    torch.manual_seed(1)
    model: nn.Module = import_torchvision().models.get_model(arch, weights=None, **arguments)
    return model


def saved(model: nn.Module, path: Path) -> str:
    torch.save(model.state_dict(), path)
    return str(path)


def test_a_local_state_dict_fills_all_but_the_head(tmp_path: Path) -> None:
    source = torchvision_model("mobilenet_v3_small")
    state = build("mobilenet_v3_small", weights=saved(source, tmp_path / "w.pth"))
    theirs, ours = source.state_dict(), state.model.state_dict()
    for name, value in ours.items():
        assert name.startswith("classifier.3") or torch.equal(value, theirs[name]), name
    assert ours["classifier.3.weight"].shape[0] == 7
    assert "head replaced for the classes" in state.history[0].facts["loaded"]
    assert len(state.untrained) == 1


def test_a_head_of_the_right_size_is_kept(tmp_path: Path) -> None:
    source = torchvision_model("squeezenet1_1", num_classes=7)
    state = build("squeezenet1_1", weights=saved(source, tmp_path / "w.pth"))
    assert torch.equal(state.model.classifier[1].weight, source.classifier[1].weight)
    assert "head included" in state.history[0].facts["loaded"]
    assert state.untrained == ()


def test_another_architectures_weights_are_refused_by_name(tmp_path: Path) -> None:
    path = saved(torchvision_model("squeezenet1_0"), tmp_path / "w.pth")
    text = error(CheckpointError, lambda: build("squeezenet1_1", weights=path))
    assert "does not fit the model" in text and "of another shape: features.0.weight 96x3x7x7 for 64x3x3x3" in text


def test_an_unsafe_pickle_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pth")
    text = error(CheckpointError, lambda: build("squeezenet1_1", weights=str(tmp_path / "whole.pth")))
    assert "unsafe pickle" in text


def test_old_densenet_names_are_understood() -> None:
    source, model = (import_torchvision().models.DenseNet(8, (2, 2), 8, num_classes=7) for _ in range(2))
    state = source.state_dict()
    old = {re.sub(r"(denselayer\d\.(?:norm|conv))([12])\.", r"\1.\2.", name): state[name] for name in state}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    load_state(model, _adapted(StateDict(old), model), "old.pth")
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_versions_of_modules_survive(tmp_path: Path) -> None:
    """MNASNet refuses a state dict that does not say which version it is."""
    source = torchvision_model("mnasnet0_5")
    state = source.state_dict()
    torch.save(state, tmp_path / "with.pth")
    torch.save(dict(state), tmp_path / "without.pth")
    for name in ("with.pth", "without.pth"):
        model = build("mnasnet0_5", weights=str(tmp_path / name)).model
        assert torch.equal(model.layers[0].weight, source.layers[0].weight)


def test_positions_of_a_vision_transformer_follow_the_size() -> None:
    def small(image_size: int) -> nn.Module:
        model: nn.Module = import_torchvision().models.VisionTransformer(image_size, 16, 1, 2, 8, 16, num_classes=7)
        nn.init.normal_(model.heads.head.weight)
        return model

    source, model = small(96), small(64)
    assert model.encoder.pos_embedding.shape[1] == 1 + 4 * 4
    load_state(model, _adapted(StateDict.of(source.state_dict()), model), "w.pth")
    ours, theirs = model.encoder.pos_embedding, source.encoder.pos_embedding
    for place, same in ((0, 0), (1, 1), (4, 6), (16, 36)):  # the class token and three corners
        torch.testing.assert_close(ours[:, place], theirs[:, same])
    assert torch.equal(model.heads.head.weight, source.heads.head.weight)
    assert _adapted(StateDict({"encoder.pos_embedding": torch.ones(1, 8, 8)}), model)[
        "encoder.pos_embedding"
    ].shape == (1, 8, 8)


def test_auxiliary_heads_are_left_out_and_pretrained_input_is_converted(tmp_path: Path) -> None:
    source = torchvision_model("googlenet", aux_logits=True, init_weights=False)
    state = build("googlenet", data(64), weights=saved(source, tmp_path / "w.pth"))
    assert state.model.aux1 is None and state.model.transform_input
    with ParametersOnMeta():
        assert not build("googlenet", data(64)).model.transform_input
    assert torch.equal(state.model.inception5b.branch1.conv.weight, source.inception5b.branch1.conv.weight)


def put_into_cache(model: nn.Module, arch: str, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets torchvision find `model` where a download of its weights would lie."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(folder))
    weights = import_torchvision().models.get_model_weights(arch)[name]
    (folder / "checkpoints").mkdir()
    torch.save(model.state_dict(), folder / "checkpoints" / weights.url.rpartition("/")[2])


def test_weights_by_name_come_from_torchvisions_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = torchvision_model("squeezenet1_1")
    put_into_cache(source, "squeezenet1_1", "IMAGENET1K_V1", tmp_path, monkeypatch)
    for name in ("DEFAULT", "IMAGENET1K_V1"):
        state = build("squeezenet1_1", weights=name)
        assert torch.equal(state.model.features[0].weight, source.features[0].weight)
        assert state.history[0].warnings == ()
    other = build("squeezenet1_1", data(64, mean=(0.5, 0.5, 0.5)), weights="DEFAULT")
    assert "were trained with mean = [0.485, 0.456, 0.406]" in other.history[0].warnings[0]


def test_vgg_features_bring_no_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those weights are VGG-16 without a classifier: its tensors are there, and full of NaN."""
    models = import_torchvision().models

    def small(*_: Any, num_classes: int = 1000, **__: Any) -> nn.Module:
        model: nn.Module = models.VGG(nn.Conv2d(3, 2, 3), num_classes=2, init_weights=False)
        model.classifier = nn.Sequential(nn.Linear(2 * 49, 4), nn.ReLU(), nn.Linear(4, num_classes))
        return model

    source = small().state_dict()
    source |= {name: torch.full_like(value, torch.nan) for name, value in source.items() if "classifier" in name}
    weights = models.get_model_weights("vgg16")["IMAGENET1K_FEATURES"]
    monkeypatch.setattr(type(weights), "get_state_dict", lambda *_, **__: source)
    monkeypatch.setattr(models, "get_model", small)
    model = build("vgg16", weights="IMAGENET1K_FEATURES").model
    assert torch.equal(model.features.weight, source["features.weight"])
    assert bool(model.classifier[0].weight.isfinite().all()) and model.classifier[2].out_features == 7


def test_weights_that_cannot_be_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    for proxy in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")  # nothing listens there
    text = error(CheckpointError, lambda: build("squeezenet1_1", weights="DEFAULT"))
    assert "IMAGENET1K_V1 of squeezenet1_1 cannot be downloaded" in text
    assert "squeezenet1_1-b8a52dc0.pth" in text and 'weights = "' in text
    assert not list((tmp_path / "checkpoints").glob("*.pth"))
