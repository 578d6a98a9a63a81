"""Networks with normalized weights through every pass: torch refuses to copy some, and what is computed anew cannot be
pruned.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import nn
from training_samples import make_context, make_net, make_state

from edgeopt.plugins.declarations import PassPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve
from edgeopt.types import ModelState

IMAGES = torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(0))
TRAINING = {"epochs": 1, "batch_size": 16}
PRUNING: Mapping[str, Mapping[str, object]] = {
    "prune-unstructured": {**TRAINING, "sparsity": 0.5},
    "prune-structured": {**TRAINING, "keep": 0.5, "round_to": 1, "least": 0.1},
    "prune-search": {**TRAINING, "keep": 0.5, "round_to": 1, "least": 0.1, "levels": [0.5], "degradation": "loss"},
}


def normalized_state() -> ModelState:
    """Weight normalization as a hook and spectral normalization as a parametrization, right after a call that was
    differentiated.
    """
    net = make_net()
    nn.utils.weight_norm(net.features[3])
    nn.utils.parametrizations.spectral_norm(net.head[1])
    net.train()(IMAGES).sum().backward()
    return make_state(net)


def apply(state: ModelState, name: str, options: Mapping[str, object], folder: Path) -> ModelState:
    use = resolve(PassPlugin, name, dict(options), load_registry())
    folder.mkdir()
    return use.plugin.apply(state, use.options, make_context(folder))


@pytest.mark.parametrize("name", ["train", "ptq", "qat"])
def test_a_network_is_trained_and_quantized_with_its_normalization(name: str, tmp_path: Path) -> None:
    state = normalized_state()
    after = apply(state, name, {"batch_size": 16} if name == "ptq" else TRAINING, tmp_path / name)
    if name == "train":
        assert "features.3.weight_g" in after.module.state_dict()
    else:
        assert after.history[-1].facts["layers_quantized"] == 3


@pytest.mark.parametrize("name", PRUNING)
def test_what_is_pruned_holds_its_weights_first(name: str, tmp_path: Path) -> None:
    trained = apply(normalized_state(), "train", {**TRAINING, "epochs": 8}, tmp_path / "train")
    before = trained.module(IMAGES)
    pruned = apply(trained, name, PRUNING[name], tmp_path / name)
    assert torch.equal(trained.module(IMAGES), before), "the state before stays as it was"
    told = [warning for warning in pruned.history[-1].warnings if "computed their weights on every call" in warning]
    assert len(told) == 1 and told[0].startswith("2 layers (features.3, head.1) ")
    layers = {name: each for name, each in pruned.module.named_modules() if isinstance(each, nn.Conv2d | nn.Linear)}
    assert list(layers) == ["features.0", "features.3", "head.1"]
    if name == "prune-unstructured":
        assert [float((each.weight == 0).float().mean()) for each in layers.values()] == [0.5, 0.5, 0.5]
    else:
        assert layers["features.3"].out_channels < 16 and layers["head.1"].in_features < 16
    assert apply(pruned, "ptq", {"batch_size": 16}, tmp_path / "ptq").history[-1].facts["layers_quantized"] == 3


@pytest.mark.parametrize("name", PRUNING)
def test_nothing_is_said_where_all_weights_are_held(name: str, tmp_path: Path) -> None:
    trained = apply(make_state(make_net()), "train", {**TRAINING, "epochs": 8}, tmp_path / "train")
    pruned = apply(trained, name, PRUNING[name], tmp_path / name)
    assert not any("computed" in warning for warning in pruned.history[-1].warnings)
