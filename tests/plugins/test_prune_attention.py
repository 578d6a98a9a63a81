"""Channels of attention whose queries, keys and values are packed into one layer: they go from all heads alike."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from training_samples import CLASSES, PREPROCESSING, make_context, make_state

from edgeopt.networks.capture import capture
from edgeopt.plugins import PassPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve
from edgeopt_pruning.structured.attention import left_alone, packed_attentions
from edgeopt_pruning.structured.cost import cost_of, layers_of, lost_channels
from edgeopt_pruning.structured.groups import Dependencies
from edgeopt_torchvision.compat import import_torchvision

SIZE, WIDTH, HEADS, DIMS = PREPROCESSING.image_size, 24, 3, 8
EXAMPLE = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def transformer(**options: object) -> nn.Module:
    """timm's, of two small blocks."""
    import_torchvision()
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    network = VisionTransformer(
        img_size=SIZE, patch_size=4, embed_dim=WIDTH, depth=2, num_heads=HEADS, num_classes=len(CLASSES), **options
    )
    for each in network.modules():  # timm starts from weights so small that attention would not matter
        if isinstance(each, nn.Linear):
            nn.init.normal_(each.weight, std=each.in_features**-0.5)
            nn.init.normal_(each.bias, std=0.3)
    return network.eval()


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "spelled out"])
def test_without_channels_it_answers_as_with_zeros_in_them(fused: bool) -> None:
    """Of other channels in each block; the division by the root of a head's channels is made up for."""
    network = transformer()
    silent = copy.deepcopy(network)
    going = {"blocks.0.attn.qkv": (1, 5, 6), "blocks.1.attn.qkv": (0, 3)}
    removal = {}
    for name, dims in going.items():
        for each in (network, silent):
            each.get_submodule(name.removesuffix(".qkv")).fused_attn = fused
        removal[name] = tuple(part * DIMS + dim for part in range(3 * HEADS) for dim in dims)
        layer = silent.get_submodule(name)
        with torch.no_grad():
            layer.weight[list(removal[name])] = 0
            layer.bias[list(removal[name])] = 0
    layers = layers_of(network, EXAMPLE)
    dependencies = Dependencies(network, EXAMPLE)
    groups = [group for group, _ in dependencies.groups()]
    found = {group.name: group for group in groups if group.name in going}
    assert {(group.parts, group.units) for group in found.values()} == {(3 * HEADS, DIMS)}
    for name, dims in going.items():
        assert found[name].channels_of(dims) == tuple(sorted(removal[name]))
    planned = cost_of(layers, lost_channels(groups, removal))

    dependencies.remove(removal)
    assert planned == cost_of(layers_of(network, EXAMPLE), {})
    attention = network.get_submodule("blocks.0.attn")
    assert (attention.head_dim, attention.attn_dim, attention.num_heads) == (5, 15, HEADS)
    assert (attention.qkv.out_features, attention.proj.in_features) == (45, 15)
    with torch.no_grad():
        torch.testing.assert_close(network(EXAMPLE), silent(EXAMPLE), rtol=1e-4, atol=1e-5)
    program = capture(network, EXAMPLE, (1, 8))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(EXAMPLE), network(EXAMPLE), rtol=1e-4, atol=1e-5)


def test_the_pass_prunes_attention_and_says_so(tmp_path: Path) -> None:
    options = {"epochs": 1, "batch_size": 16, "round_to": 2, "keep": 0.6, "ranking": "local"}
    use = resolve(PassPlugin, "prune-structured", options, load_registry())
    after = use.plugin.apply(make_state(transformer()), use.options, make_context(tmp_path))
    facts = after.history[-1].facts
    assert {"blocks.0.attn.qkv", "blocks.1.attn.qkv", "blocks.0.mlp.fc1"} <= set(facts["layers_changed"])
    assert facts["macs_kept"] <= 0.6
    assert "attention_left_alone" not in facts
    for block in after.module.blocks:
        attention = block.attn
        assert attention.qkv.out_features == 3 * HEADS * attention.head_dim == 3 * attention.proj.in_features
        assert attention.head_dim < DIMS and attention.head_dim % 2 == 0
    with torch.no_grad():
        assert torch.isfinite(capture(after.module, EXAMPLE, (1, 8)).module()(EXAMPLE)).all()


class OfItsWidth(nn.Module):
    """Attention that computes the channels of a head from the width of its input, as many copies of ViT do."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, **_of_timm: object) -> Tensor:
        batch, tokens, width = x.shape
        split = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, width // self.num_heads)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape))


@pytest.mark.parametrize("kind", ["of its width", "normalized heads"])
def test_attention_that_cannot_lose_channels_is_left_and_named(kind: str, tmp_path: Path) -> None:
    network = transformer(qk_norm=kind == "normalized heads")
    if kind == "of its width":
        for block in network.blocks:
            block.attn = OfItsWidth(WIDTH, HEADS)
    assert packed_attentions(network) == {}
    names = ["blocks.0.attn.qkv", "blocks.1.attn.qkv"]
    assert left_alone(network) == names
    options = {"epochs": 1, "batch_size": 16, "round_to": 1, "keep": 0.8}
    use = resolve(PassPlugin, "prune-structured", options, load_registry())
    facts = use.plugin.apply(make_state(network), use.options, make_context(tmp_path)).history[-1].facts
    assert facts["attention_left_alone"] == names
    assert set(facts["layers_changed"]) == {"blocks.0.mlp.fc1", "blocks.1.mlp.fc1"}
