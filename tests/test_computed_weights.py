"""Weights that a network computes from its parameters become constants when it is captured."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional, utils
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from edgeopt.errors import ExportError
from edgeopt.networks.bits import layer_bits
from edgeopt.networks.capture import capture
from edgeopt.networks.computed_weights import store_computed_weights
from edgeopt.networks.copies import copy_module, load_module, save_module
from edgeopt_executorch.quantizer import build_xnnpack
from edgeopt_torchao.quantize.convert import convert
from edgeopt_torchao.quantize.prepare import calibrate, prepare_ptq


class Standardized(nn.Conv2d):
    """Weight standardization, https://arxiv.org/abs/1903.10520."""

    def forward(self, features: Tensor) -> Tensor:
        mean, spread = self.weight.mean((1, 2, 3), keepdim=True), self.weight.std((1, 2, 3), keepdim=True)
        return functional.conv2d(features, (self.weight - mean) / (spread + 1e-5), self.bias, self.stride)


class Network(nn.Module):
    """A layer called twice, and once more with a weight that the image has a part in, which stays computed."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(3, 4)

    def forward(self, images: Tensor) -> Tensor:
        features = self.layer(functional.relu(self.layer(images)))
        gate = features.mean((0, 2, 3), keepdim=True).transpose(0, 1)
        features = features + functional.conv2d(features, self.head.weight[:3, :, None, None] * gate)
        return self.head(features.mean((2, 3)))


def images() -> Tensor:
    return torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "layer",
    [
        lambda: weight_norm(nn.Conv2d(3, 3, 3)),
        lambda: spectral_norm(nn.Conv2d(3, 3, 3)),
        lambda: Standardized(3, 3, 3),
    ],
    ids=["weight-norm", "spectral-norm", "standardized"],
)
def test_a_weight_computed_from_parameters_becomes_the_layers_own(layer: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    module = Network(layer()).eval()
    program = capture(module, images(), (4, 4))
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert not any(part in target for target in targets for part in ("norm", "std", "div", "mv"))
    assert [each.name for each in layer_bits(program)] == ["layer", "layer", "head"]
    assert "layer.weight" in program.state_dict
    torch.testing.assert_close(program.module()(images()), module(images()))


def test_weights_that_are_parameters_stay_as_they_are() -> None:
    module = Network(nn.Conv2d(3, 3, 3)).eval()
    state = capture(module, images(), (4, 4)).state_dict
    assert {name: torch.equal(value, state[name]) for name, value in module.state_dict().items()} == dict.fromkeys(
        state, True
    )


def test_the_rounding_of_weights_is_no_arithmetic() -> None:
    quantizer = build_xnnpack(per_channel=True, qat=False)
    prepared = prepare_ptq(capture(Network(Standardized(3, 3, 3)).eval(), images(), (4, 4)), quantizer)
    calibrate(prepared, [images()])
    assert {each.weights for each in layer_bits(capture(convert(prepared), images(), (4, 4)))} == {8}


def test_a_parameter_that_something_else_reads_stays_beside_the_computed_weight() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = Standardized(3, 4, 3)

        def forward(self, images: Tensor) -> Tensor:
            return self.layer(images).mean((2, 3)) + self.layer.weight.sum((1, 2, 3)) * images.mean()

    torch.manual_seed(0)
    module = Both().eval()
    program = capture(module, images(), (1, 8))
    assert set(program.state_dict) == {"layer.weight", "layer.weight_computed", "layer.bias"}
    torch.testing.assert_close(program.module()(images()), module(images()))


def test_two_computed_weights_of_one_module_stay_two() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = (nn.Parameter(torch.randn(3, 3, 1, 1)) for _ in range(2))

        def forward(self, images: Tensor) -> Tensor:
            features = functional.conv2d(images, self.first * 2)
            return functional.conv2d(features, self.second * 3).mean((2, 3))

    torch.manual_seed(0)
    module = Two().eval()
    program = capture(module, images(), (1, 8))
    assert set(program.state_dict) == {"weight", "weight_computed"}
    torch.testing.assert_close(program.module()(images()), module(images()))


def test_a_batch_that_a_squeeze_takes_away_is_refused() -> None:
    class Squeezed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 4)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(functional.adaptive_avg_pool2d(images, 1).squeeze())

    with pytest.raises(ExportError, match=r"returns \(4,\) for 1 image.*\n.*flatten\(1\)"):
        capture(Squeezed(), images(), (1, 8))


NORMALIZED = pytest.mark.parametrize(
    "normalized",
    [
        utils.weight_norm,
        utils.spectral_norm,
        weight_norm,
        spectral_norm,
    ],
    ids=["weight-norm-hook", "spectral-norm-hook", "weight-norm", "spectral-norm"],
)


@NORMALIZED
def test_a_module_is_copied_right_after_it_was_called(normalized: Callable[[nn.Module], nn.Module]) -> None:
    module = Network(normalized(nn.Conv2d(3, 3, 3))).train()
    module(images()).sum().backward()
    copied = copy_module(module).eval()
    before = module.eval()(images())
    assert torch.equal(copied(images()), before)
    other = copy_module(module)
    store_computed_weights(other)
    assert torch.equal(module(images()), before) and torch.equal(copied(images()), before), "copies share nothing"
    copied(images()).sum().backward()
    assert all(each.grad is not None for each in copied.parameters()), "the copy can be trained"


@NORMALIZED
def test_a_computed_weight_is_stored_and_the_function_stays(normalized: Callable[[nn.Module], nn.Module]) -> None:
    torch.manual_seed(0)
    module = Network(normalized(nn.Conv2d(3, 3, 3))).train()
    module(images()).sum().backward()
    before = module.eval()(images())
    assert store_computed_weights(module) == ("layer",)
    torch.testing.assert_close(module(images()), before, atol=1e-5, rtol=1e-5)
    assert set(dict(module.layer.named_parameters())) == {"weight", "bias"}
    assert type(module.layer) is nn.Conv2d
    assert store_computed_weights(module) == ()
    pickle.dumps(module)
    assert module.load_state_dict(module.state_dict()) == torch.nn.modules.module._IncompatibleKeys([], [])


@NORMALIZED
@pytest.mark.parametrize("called", [False, True])
def test_a_module_on_disk_is_the_same_and_can_be_trained(
    normalized: Callable[[nn.Module], nn.Module], called: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module = Network(normalized(nn.Conv2d(3, 3, 3))).train()
    if called:
        module(images()).sum().backward()
    save_module(module, tmp_path / "module.pt")
    read = load_module(tmp_path / "module.pt")
    for each in (module, read):
        assert each.training
        each.zero_grad()
        each(images()).sum().backward()
    assert {name: each.shape for name, each in read.named_parameters()} == {
        name: each.shape for name, each in module.named_parameters()
    }
    for (name, one), other in zip(module.named_parameters(), read.parameters(), strict=True):
        assert torch.equal(one, other) and torch.equal(one.grad, other.grad), name
    assert torch.equal(read.eval()(images()), module.eval()(images()))
    save_module(read, tmp_path / "again.pt")
    assert torch.equal(load_module(tmp_path / "again.pt")(images()), module(images()))
