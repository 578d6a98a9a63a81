"""Weights that a network computes from its parameters become constants when it is captured."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from edgeopt.bits import layer_bits
from edgeopt.errors import ExportError
from edgeopt.program import capture
from edgeopt_executorch.quantizer import build_xnnpack
from edgeopt_torchao.convert import convert
from edgeopt_torchao.prepare import calibrate, prepare_ptq


class Standardized(nn.Conv2d):
    """Weight standardization, https://arxiv.org/abs/1903.10520."""

    def forward(self, features: Tensor) -> Tensor:
        mean, spread = self.weight.mean((1, 2, 3), keepdim=True), self.weight.std((1, 2, 3), keepdim=True)
        return functional.conv2d(features, (self.weight - mean) / (spread + 1e-5), self.bias, self.stride)


class Network(nn.Module):
    """A layer called twice, and once more with a weight that the picture has a part in, which stays computed."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(3, 4)

    def forward(self, images: Tensor) -> Tensor:
        features = self.layer(functional.relu(self.layer(images)))
        gate = features.mean((0, 2, 3), keepdim=True).transpose(0, 1)
        features = features + functional.conv2d(features, self.head.weight[:3, :, None, None] * gate)
        return self.head(features.mean((2, 3)))


def pictures() -> Tensor:
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
    program = capture(module, pictures(), (4, 4))
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert not any(part in target for target in targets for part in ("norm", "std", "div", "mv"))
    assert [each.name for each in layer_bits(program)] == ["layer", "layer", "head"]
    assert "layer.weight" in program.state_dict
    torch.testing.assert_close(program.module()(pictures()), module(pictures()))


def test_weights_that_are_parameters_stay_as_they_are() -> None:
    module = Network(nn.Conv2d(3, 3, 3)).eval()
    state = capture(module, pictures(), (4, 4)).state_dict
    assert {name: torch.equal(value, state[name]) for name, value in module.state_dict().items()} == dict.fromkeys(
        state, True
    )


def test_the_rounding_of_weights_is_no_arithmetic() -> None:
    quantizer = build_xnnpack(per_channel=True, qat=False)
    prepared = prepare_ptq(capture(Network(Standardized(3, 3, 3)).eval(), pictures(), (4, 4)), quantizer)
    calibrate(prepared, [pictures()])
    assert {each.weights for each in layer_bits(capture(convert(prepared), pictures(), (4, 4)))} == {8}


def test_a_parameter_that_something_else_reads_stays_beside_the_computed_weight() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = Standardized(3, 4, 3)

        def forward(self, images: Tensor) -> Tensor:
            return self.layer(images).mean((2, 3)) + self.layer.weight.sum((1, 2, 3)) * images.mean()

    torch.manual_seed(0)
    module = Both().eval()
    program = capture(module, pictures(), (1, 8))
    assert set(program.state_dict) == {"layer.weight", "layer.weight_computed", "layer.bias"}
    torch.testing.assert_close(program.module()(pictures()), module(pictures()))


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
    program = capture(module, pictures(), (1, 8))
    assert set(program.state_dict) == {"weight", "weight_computed"}
    torch.testing.assert_close(program.module()(pictures()), module(pictures()))


def test_a_batch_that_a_squeeze_takes_away_is_refused() -> None:
    class Squeezed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 4)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(functional.adaptive_avg_pool2d(images, 1).squeeze())

    with pytest.raises(ExportError, match=r"returns \(4,\) for 1 picture.*\n.*flatten\(1\)"):
        capture(Squeezed(), pictures(), (1, 8))
