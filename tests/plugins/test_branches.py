"""Branches that were trained side by side are one convolution where the float model ends, and the record says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgeopt.networks.bits import layer_bits
from edgeopt.networks.capture import capture, capture_merged, to_program
from edgeopt.plugins import PassPlugin, UserError
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve
from edgeopt.testing import pass_context, tiny_data, tiny_program
from edgeopt.types import Form, ModelState, PassRecord
from edgeopt_executorch.quantizer import build_xnnpack
from edgeopt_torchao.quantize.convert import convert
from edgeopt_torchao.quantize.prepare import calibrate, prepare_ptq
from edgeopt_torchvision.compat import import_torchvision

SIZE, CHANNELS, CLASSES = 16, 8, 3


def conv(
    size: int | tuple[int, int] = 3, *, inputs: int = CHANNELS, norm: bool = True, **options: Any
) -> nn.Sequential:
    sizes = (size, size) if isinstance(size, int) else size
    dilation = options.get("dilation", 1)
    padding = tuple(dilation * (each // 2) for each in sizes)
    layer = nn.Conv2d(inputs, CHANNELS, sizes, padding=padding, bias=not norm, **options)
    return nn.Sequential(layer, nn.BatchNorm2d(CHANNELS)) if norm else nn.Sequential(layer)


class Net(nn.Module):
    """A stem, a block of branches called twice where `calls` is 2, and a head."""

    def __init__(self, body: Callable[..., Tensor], *branches: nn.Module, calls: int = 1) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.branches = nn.ModuleList(branches)
        self.head = nn.Linear(CHANNELS, CLASSES)
        self.scale = nn.Parameter(torch.rand(CHANNELS, 1, 1))
        self.body, self.calls = body, calls

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.stem(images))
        for _ in range(self.calls):
            x = torch.relu(self.body(x, *self.branches))
        return self.head(x.mean((2, 3)))


def added(x: Tensor, *branches: nn.Module) -> Tensor:
    out: Tensor | float = 0
    for branch in branches:
        out += branch(x)
    return out


def norm() -> nn.Module:
    return nn.BatchNorm2d(CHANNELS)


def images(seed: int = 0) -> Tensor:
    return torch.randn(8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def learned(network: nn.Module) -> nn.Module:
    """With BatchNorms that are not the identity."""
    for each in network.modules():
        if isinstance(each, nn.BatchNorm2d):
            nn.init.uniform_(each.weight, 0.5, 1.5)
            nn.init.uniform_(each.bias, -0.3, 0.3)
    with torch.no_grad():
        for seed in range(3):
            network.train()(images(seed))
    return network.eval()


MERGED = {
    "RepVGG": lambda: Net(lambda x, a, b, c: a(x) + b(x) + c(x), conv(3), conv(1), norm()),
    "RepVGG with a stride": lambda: Net(added, conv(3, stride=2), conv(1, stride=2)),
    "MobileOne": lambda: Net(added, *(conv(3, groups=CHANNELS) for _ in range(3)), conv(1, groups=CHANNELS), norm()),
    "ACNet": lambda: Net(added, conv(3), conv((1, 3)), conv((3, 1))),
    "a large kernel beside a small one": lambda: Net(added, conv(7, groups=4), conv(3, groups=4)),
    "dilated": lambda: Net(added, conv(3, dilation=2), conv(1), norm()),
    "RepViT": lambda: Net(
        lambda x, a, b, c: c(a(x) + b(x) + x), conv(3, groups=8), conv(1, groups=8, norm=False), norm()
    ),
    "RepMixer": lambda: Net(lambda x, a, b: x + a(x) - b(x), conv(3, groups=8), norm()),
}


@pytest.mark.parametrize("name", MERGED)
def test_branches_become_one_convolution(name: str) -> None:
    torch.manual_seed(0)
    network = learned(MERGED[name]())
    captured = capture_merged(network, images(), (1, 8))
    assert [each.name for each in layer_bits(captured.program)] == ["stem", "branches.0.0", "head"]
    assert captured.branches_merged == ("branches.0.0.weight",)
    assert captured.facts() == {"branches_merged_into": 1}
    assert not [node for node in captured.program.graph.nodes if "batch_norm" in str(node.target)]
    with torch.no_grad():
        torch.testing.assert_close(captured.program.module()(images(7)), network(images(7)), rtol=1e-4, atol=1e-5)
    trained = set(dict(network.named_parameters()))
    assert {name for name, _ in captured.program.named_parameters()} <= {*trained, "branches.0.0.bias"}


def test_a_scale_for_each_channel_is_merged_too() -> None:
    """As FastViT trains its mixer of tokens."""
    network = Net(lambda x, a, b: x + network.scale * (a(x) - b(x)), conv(3, groups=8), norm())
    captured = capture_merged(learned(network), images(), (1, 8))
    assert captured.branches_merged == ("branches.0.0.weight",)
    with torch.no_grad():
        torch.testing.assert_close(captured.program.module()(images(7)), network(images(7)), rtol=1e-4, atol=1e-5)


LEFT = {
    "one convolution and a residual": lambda: Net(lambda x, a: x + a(x), conv(3)),
    "of different inputs": lambda: Net(lambda x, a, b: a(x) + b(torch.sigmoid(x)), conv(3), conv(1)),
    "of different groups, which would cost more": lambda: Net(added, conv(3, groups=8), conv(1)),
    "of different steps": lambda: Net(added, conv(3, dilation=2), conv(3)),
    "neither window holds the other": lambda: Net(added, conv((1, 3)), conv((3, 1))),
    "something in between": lambda: Net(lambda x, a, b: torch.relu(a(x)) + b(x), conv(3), conv(1)),
    "one is read elsewhere": lambda: Net(lambda x, a, b: (y := a(x)) + b(x) + torch.relu(y), conv(3), conv(1)),
    "BatchNorms alone": lambda: Net(added, norm(), norm()),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_does_not_add_up_to_one_convolution_is_left(name: str) -> None:
    torch.manual_seed(0)
    network = learned(LEFT[name]())
    captured = capture_merged(network, images(), (1, 8))
    assert captured.branches_merged == () and captured.facts() == {}
    layers = [each for each in network.modules() if isinstance(each, (nn.Conv2d, nn.Linear))]
    assert len(layer_bits(captured.program)) == len(layers)


def test_zeros_of_pruning_are_not_filled() -> None:
    network = learned(MERGED["RepVGG"]())
    with torch.no_grad():
        weight = network.branches[0][0].weight
        weight.copy_(torch.where(weight.abs() > weight.abs().median(), weight, 0.0))
    assert capture_merged(network, images(), (1, 8)).branches_merged == ()


def test_calls_of_one_block_share_the_merged_weight() -> None:
    network = learned(Net(added, conv(3), conv(1), norm(), calls=2))
    captured = capture_merged(network, images(), (1, 8))
    assert captured.branches_merged == ("branches.0.0.weight",) * 2
    assert [each.name for each in layer_bits(captured.program)] == ["stem", "branches.0.0", "branches.0.0", "head"]
    with torch.no_grad():
        torch.testing.assert_close(captured.program.module()(images(7)), network(images(7)), rtol=1e-4, atol=1e-5)


# ---- passes before and after -----------------------------------------------------------------------------------------


BLOCKS = ("RepVGG", "MobileOne")


def applied(state: ModelState, name: str, folder: Path, **options: Any) -> ModelState:
    use = resolve(PassPlugin, name, options, load_registry())
    return use.plugin.apply(state, use.options, pass_context(folder, tiny_data(CLASSES, SIZE)))


def block_state(name: str) -> ModelState:
    torch.manual_seed(0)
    return state_of(learned(MERGED[name]()), SIZE)


def require_agreement(before: nn.Module, after: ModelState) -> None:
    """Int8 answers as the float network does, as a share of its logits' range on the images that showed the ranges."""
    pixels = tiny_data(CLASSES, SIZE).calibration.pixels(slice(None))
    inputs = torch.from_numpy(after.preprocessing.normalize(pixels))
    with torch.no_grad():
        expected, logits = before.eval()(inputs), after.model.module()(inputs)
    assert (logits - expected).abs().max() <= 0.08 * (expected.max() - expected.min())


@pytest.mark.parametrize("name", BLOCKS)
def test_channels_are_pruned_and_branches_merged_and_quantized(name: str, tmp_path: Path) -> None:
    budget = {"cost": "parameters", "keep": 0.7, "round_to": 1, "epochs": 1, "batch_size": 16, "learning_rate": 1e-3}
    pruned = applied(block_state(name), "prune-structured", tmp_path / "prune", **budget)
    assert pruned.module.stem.out_channels < CHANNELS
    after = applied(pruned, "ptq", tmp_path / "ptq", batch_size=8)
    assert after.history[-1].facts["branches_merged_into"] == 1
    assert [each.weights for each in layer_bits(after.model)] == [8, 8, 8]
    require_agreement(pruned.module, after)


@pytest.mark.parametrize("name", BLOCKS)
def test_merged_branches_are_trained_with_rounding(name: str, tmp_path: Path) -> None:
    state = block_state(name)
    after = applied(state, "qat", tmp_path, epochs=1, batch_size=16, learning_rate=1e-6)
    assert after.history[-1].facts["branches_merged_into"] == 1
    assert [each.weights for each in layer_bits(after.model)] == [8, 8, 8]
    require_agreement(state.module, after)


@pytest.mark.parametrize("name", BLOCKS)
def test_zeros_are_not_made_in_weights_that_are_added_to_others(name: str, tmp_path: Path) -> None:
    state, few = block_state(name), {"epochs": 1, "batch_size": 16, "sparsity": 0.5}
    with pytest.raises(UserError, match=r"layers \(branches\.0\.0, branches\.1\.0.* become one layer") as caught:
        applied(state, "prune-unstructured", tmp_path / "refused", **few)
    assert caught.value.problems[0].option == "protect"
    after = applied(state, "prune-unstructured", tmp_path / "dense", **few, protect=["branches"])
    assert set(after.history[-1].facts["layer_sparsity"]) == {"stem", "head"}
    captured = capture_merged(after.module, images(), (1, 8))
    assert captured.branches_merged == ("branches.0.0.weight",)
    assert (captured.program.state_dict["stem.weight"] == 0).float().mean() > 0.4


# ---- whole networks ------------------------------------------------------------------------------------------------


def small(kind: str) -> nn.Module:
    """timm's RepVGG ("rep") or MobileOne ("one"), with few channels."""
    import_torchvision()
    from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg

    sizes = ((1, 16, 0), (1, 16, 1), (2, 24, 0)) if kind == "one" else ((2, 16, 0), (2, 24, 0))
    blocks = tuple(ByoBlockCfg(type=kind, d=depth, c=width, s=2, gs=size, br=1.0) for depth, width, size in sizes)
    return ByobNet(ByoModelCfg(blocks=blocks, stem_type=kind, stem_chs=16), num_classes=CLASSES)


LAYERS = 6  # the stem, four blocks and the head


def colours(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise, one of whose three channels is a little brighter."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    pictures = torch.randn(count, 3, 32, 32, generator=generator)
    pictures[torch.arange(count), labels] += 0.3
    return pictures, labels


@pytest.fixture(scope="module", params=["rep", "one"], ids=["RepVGG", "MobileOne"])
def trained(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    network = small(request.param).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    for seed in range(40):
        pictures, labels = colours(48, seed)
        loss = nn.functional.cross_entropy(network(pictures), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def test_the_float_program_says_what_was_merged(trained: nn.Module) -> None:
    state = state_of(trained)
    convolutions = sum(isinstance(each, nn.Conv2d) for each in trained.modules())
    program = to_program(state, tiny_data(CLASSES, 32).validation)
    assert program.history[-1].facts["branches_merged_into"] == LAYERS - 1 < convolutions - 1
    assert len(layer_bits(program.program)) == LAYERS
    assert "branches_merged_into" not in state.history[-1].facts


def test_the_record_of_ptq_says_what_was_merged(trained: nn.Module, tmp_path: Path) -> None:
    use = resolve(PassPlugin, "ptq", {"batch_size": 8}, load_registry())
    after = use.plugin.apply(state_of(trained), use.options, pass_context(tmp_path, tiny_data(CLASSES, 32)))
    facts = after.history[-1].facts
    assert facts["branches_merged_into"] == LAYERS - 1
    assert facts["layers"] == facts["layers_quantized"] == LAYERS


def test_int8_of_merged_branches_is_as_accurate_as_float(trained: nn.Module) -> None:
    pictures, labels = colours(384, 1000)
    prepared = prepare_ptq(capture(trained, pictures[:4], (1, 512)), build_xnnpack(per_channel=True, qat=False))
    calibrate(prepared, [colours(48, 0)[0]])
    with torch.no_grad():
        accuracies = [
            (model(pictures).argmax(1) == labels).float().mean().item() for model in (trained, convert(prepared))
        ]
    assert accuracies[0] > 0.9
    assert accuracies[1] > accuracies[0] - 0.02


def state_of(network: nn.Module, size: int = 32) -> ModelState:
    state = tiny_program(tiny_data(CLASSES, size))
    return replace(state, model=network, form=Form.MODULE, history=(PassRecord("model"),), imports=())
