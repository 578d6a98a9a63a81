"""What a layer is: every operator with a weight, where it has its input, weight and bias, and who asks for that."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgeopt.networks.bits import activation_range, bits_between, layer_bits, weight_range
from edgeopt.networks.capture import capture, export_program
from edgeopt.networks.layers import LayerKind, constant_of, layer_call
from edgeopt.plugins import Bits
from edgeopt.sensitivity.network import Network
from edgeopt.types import Change
from edgeopt_executorch.quantizer import build_xnnpack
from edgeopt_tensorrt.quantizer import build_tensorrt
from edgeopt_torchao.bits.rules import BitRules, NarrowingQuantizer, weighted_layers
from edgeopt_torchao.quantize.convert import convert
from edgeopt_torchao.quantize.prepare import calibrate, prepare_ptq
from edgeopt_torchao.repair.reconstruction import Repairs, repair

SIZE = 8


class Conv1D(nn.Module):
    """A transformer's: a linear layer with its weight the other way round, by `addmm`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5)
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, x: Tensor) -> Tensor:
        shape = (*x.shape[:-1], self.weight.shape[1])
        return torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight).view(shape)


class Projection(nn.Module):
    """A product by a matrix, without a bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class Transformer(nn.Module):
    """A stem, two layers by `addmm` with a residual, a projection and a head."""

    def __init__(self, classes: int = 3, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, 4)
        self.up = Conv1D(width, 2 * width)
        self.down = Conv1D(2 * width, width)
        self.project = Projection(width, width)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images).flatten(2).transpose(1, 2)
        x = x + self.down(torch.relu(self.up(x)))
        return self.head(self.project(x).mean(1))


class Batched(nn.Module):
    """A product by a stack of matrices with a bias, by `baddbmm`."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(2, 3, 5)), nn.Parameter(torch.randn(2, 1, 5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x.flatten(2).transpose(1, 2), self.weight)


def calls(module: nn.Module, shape: tuple[int, ...]):
    program = torch.export.export(module.eval(), (torch.randn(shape),))
    return [each for each in map(layer_call, program.module(check_guards=False).graph.nodes) if each is not None]


@pytest.mark.parametrize(
    ("module", "shape", "kind", "axis"),
    [
        (nn.Linear(3, 5), (2, 3), LayerKind.LINEAR, 0),
        (nn.Conv1d(3, 5, 3), (2, 3, 8), LayerKind.CONVOLUTION, 0),
        (nn.Conv2d(3, 5, 3, padding="same"), (2, 3, 8, 8), LayerKind.CONVOLUTION, 0),
        (nn.Conv3d(3, 5, 3, padding="valid"), (2, 3, 8, 8, 8), LayerKind.CONVOLUTION, 0),
        (nn.ConvTranspose1d(3, 5, 3), (2, 3, 8), LayerKind.TRANSPOSED, 1),
        (nn.ConvTranspose2d(3, 5, 3), (2, 3, 8, 8), LayerKind.TRANSPOSED, 1),
        (Conv1D(3, 5), (2, 4, 3), LayerKind.LINEAR, 1),
        (Projection(3, 5), (2, 4, 3), LayerKind.LINEAR, 1),
        (Batched(), (2, 3, 2, 2), LayerKind.LINEAR, 2),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_input_weight_and_bias_of_each_kind(module: nn.Module, shape: tuple[int, ...], kind: str, axis: int) -> None:
    (layer,) = calls(module, shape)
    assert layer.kind is kind
    source = constant_of(layer.weight)
    assert source is not None and source.target == "weight"
    weight = dict(module.named_parameters())["weight"]
    assert layer.operator.weight_axis % weight.dim() == axis and weight.shape[axis] == 5
    assert layer.input not in (source, layer.bias)
    assert (layer.bias is None) == (not hasattr(module, "bias"))
    assert layer.bias is None or layer.bias.target == "bias"


def test_products_by_a_matrix_are_captured_as_linear_layers() -> None:
    """As most networks have them, so that quantizers and runtimes know them; the answers stay."""
    torch.manual_seed(0)
    network, images = Transformer().eval(), torch.randn(2, 3, SIZE, SIZE)
    program = capture(network, images, (1, 8))
    assert [each.name for each in layer_bits(program)] == ["stem", "up", "down", "project", "head"]
    assert all(each.is_linear for each in layer_bits(program)[1:])
    assert {str(node.target) for node in program.graph.nodes if "mm" in str(node.target)} == set()
    torch.testing.assert_close(program.module()(images), network(images))


def test_a_product_of_two_activations_is_no_layer_with_a_weight() -> None:
    class Attention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x @ x.transpose(1, 2)).sum((1, 2))[:, None].expand(-1, 2)

    program = export_program(Attention(), torch.randn(2, 4, 4), (1, 8))
    assert layer_bits(program) == ()


@pytest.mark.parametrize("bits", range(2, 9))
def test_ranges_of_integers(bits: int) -> None:
    assert bits_between(*weight_range(bits)) == bits_between(*activation_range(bits)) == bits
    assert weight_range(bits)[0] == -weight_range(bits)[1] and activation_range(bits)[0] == -(2 ** (bits - 1))


def transformer() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Transformer().eval(), torch.randn(16, 3, SIZE, SIZE)


@pytest.mark.parametrize("build", [build_xnnpack, build_tensorrt])
def test_layers_by_addmm_take_their_bits_and_are_repaired(build) -> None:
    """`weight_bits`, `edge_bits` and `layer_bits` reach them, and so does reconstruction."""
    network, images = transformer()
    program = capture(network, images, (1, 16))
    options = {"per_channel": True} if build is build_xnnpack else {}
    rules = BitRules(Bits(4, 8), patterns={"down": Bits(3, 8)})
    quantizer = NarrowingQuantizer(build(qat=False, **options), rules)
    prepared = prepare_ptq(program, quantizer)
    calibrate(prepared, [images])
    converted = convert(prepared)
    repaired = repair(prepared, converted, images, Repairs(rounding_steps=20, correct_bias=True), seed=0)
    assert repaired.layers == repaired.biases_corrected == 5
    found = {each.name: each.weights for each in layer_bits(export_program(converted, images, (1, 16)))}
    assert found == {"stem": 8, "up": 4, "down": 3, "project": 4, "head": 8}  # the first and the last keep eight


def test_a_graph_that_still_has_addmm_names_its_layers() -> None:
    """A program of others, which edgeopt did not capture."""
    network, images = transformer()
    model = export_program(network, images, (1, 16)).module(check_guards=False)
    assert [each.name for each in weighted_layers(model)] == ["stem", "up", "down", "project", "head"]
    up = weighted_layers(model)[1]
    assert (up.weight.target, up.bias.target) == ("up.weight", "up.bias")


def test_a_scan_changes_the_weight_and_the_input_of_addmm() -> None:
    network, images = transformer()
    scanned = Network(export_program(network, images, (1, 16)))
    layer = scanned.layers["up"]
    assert (layer.kind, layer.channel_axis) == (LayerKind.LINEAR, 1)
    with torch.inference_mode():
        torch.testing.assert_close(scanned.outputs(images)[0], network(images))
        changed = scanned.outputs(images, {"up": Change(weight=layer.weight * 0.5, input=lambda x: x + 1)})[0]
        network.up.weight.mul_(0.5)
        network.up.register_forward_pre_hook(lambda _, given: (given[0] + 1,))
        torch.testing.assert_close(changed, network(images))
