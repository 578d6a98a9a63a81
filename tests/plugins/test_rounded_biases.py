"""A quantized program rounds biases as kernels do, and so answers as the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import small_programs
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.fx import GraphModule
from torchao.quantization.pt2e.quantizer import Quantizer

from edgeopt.networks.bits import rounding_of
from edgeopt.networks.capture import capture, export_program
from edgeopt.networks.layers import layer_call
from edgeopt.networks.tensors import named_tensor
from edgeopt.testing.values import tiny_int8_program
from edgeopt_executorch.quantizer import build_xnnpack
from edgeopt_onnx.conversion import export_onnx
from edgeopt_onnx.predictor import OnnxPredictor
from edgeopt_torchao.quantize.biases import round_biases
from edgeopt_torchao.quantize.convert import convert
from edgeopt_torchao.quantize.prepare import calibrate, prepare_ptq, prepare_qat

SIZE = 12


class Deep(nn.Module):
    """Layers whose every value is rounded, one after the other, as deep as a small network of phones."""

    def __init__(self, layers: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU())
        middle = ((nn.Conv2d(16, 16, 3, padding=1, groups=groups), nn.ReLU()) for groups in (1, 16) * (layers // 2))
        self.middle = nn.Sequential(*(each for pair in middle for each in pair))
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.middle(self.stem(images))).flatten(1)


def images(count: int) -> torch.Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def converted(per_channel: bool = True, seed: int = 0) -> GraphModule:
    torch.manual_seed(seed)
    net = Deep().eval()
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=1.6 * layer.weight[0].numel() ** -0.5)
    return quantized(net, build_xnnpack(per_channel=per_channel, qat=False))


def quantized(net: nn.Module, quantizer: Quantizer) -> GraphModule:
    prepared = prepare_ptq(capture(net, images(2), (1, 64)), quantizer)
    calibrate(prepared, [images(32)])
    return convert(prepared)


@pytest.mark.parametrize("per_channel", [True, False])
def test_a_program_answers_as_its_file_nearly_everywhere_to_the_integer(per_channel: bool, tmp_path: Path) -> None:
    def share_apart(name: str) -> float:
        program = export_program(model, images(2), (1, 64))
        with torch.no_grad():
            expected = program.module()(images(32)).numpy()
        with OnnxPredictor(export_onnx(program, tmp_path / name, card_json="{}").path, threads=1) as predictor:
            return float(np.mean(~np.isclose(predictor.predict(images(32).numpy())[0], expected, rtol=0, atol=1e-5)))

    model = converted(per_channel)
    before = share_apart("float.onnx")
    assert round_biases(model) == 10
    # what is left are sums that lie between two integers to the last bits of a float32
    assert share_apart("rounded.onnx") < 0.005
    assert before > 0.2, "nothing was apart"


@pytest.mark.parametrize("qat", [False, True])
def test_an_average_over_a_map_has_a_range_of_its_own(qat: bool) -> None:
    class Squeeze(nn.Module):
        """Maps of few large values, whose averages are small."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)
            self.pool = nn.AdaptiveAvgPool2d(1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.head(self.pool(torch.relu(self.stem(images) - 1))).flatten(1)

    torch.manual_seed(0)
    program, quantizer = capture(Squeeze().eval(), images(2), (1, 64)), build_xnnpack(per_channel=True, qat=qat)
    prepared = prepare_qat(program, quantizer) if qat else prepare_ptq(program, quantizer)
    calibrate(prepared, [images(32)])
    model = convert(prepared)
    (pool,) = (node for node in model.graph.nodes if "avg_pool" in str(node.target))
    (quantize,) = pool.users
    before, after = (rounding_of(node) for node in (pool.args[0], quantize))
    assert before is not None
    assert after is not None
    assert after.scale < before.scale / 2


@settings(max_examples=10, deadline=None)
@given(st.booleans(), st.integers(0, 99))
def test_each_bias_is_a_whole_number_of_steps_and_moved_by_half_of_one_at_most(per_channel: bool, seed: int) -> None:
    model = converted(per_channel, seed)
    layers = [layer for layer in map(layer_call, model.graph.nodes) if layer is not None]
    before = [named_tensor(model, str(layer.bias.target)).clone() for layer in layers if layer.bias is not None]
    round_biases(model)
    assert len(before) == len(layers) == 10
    for layer, old in zip(layers, before, strict=True):
        assert layer.bias is not None
        scale = layer.weight.args[1]
        scales = torch.tensor(scale) if isinstance(scale, float) else named_tensor(model, str(scale))
        step = layer.input.args[1] * scales.double()
        bias = named_tensor(model, str(layer.bias.target)).double()
        steps = bias / step
        assert (steps - steps.round()).abs().max() < 1e-3
        assert ((bias - old.double()).abs() <= step * 0.5001).all()
    again = [named_tensor(model, str(layer.bias.target)).clone() for layer in layers if layer.bias is not None]
    round_biases(model)
    assert all(
        torch.equal(one, named_tensor(model, str(layer.bias.target)))
        for one, layer in zip(again, layers, strict=True)
        if layer.bias is not None
    )


@pytest.mark.parametrize(("bits", "rounded"), [(8, 4), (4, 0)])
def test_layers_of_fewer_bits_keep_their_biases(bits: int, rounded: int) -> None:
    model = small_programs.quantized(small_programs.capture(small_programs.float_net()), weight_bits=bits).module()
    assert isinstance(model, GraphModule)
    assert round_biases(model) == rounded


def test_the_program_that_a_pass_hands_on_has_rounded_biases() -> None:
    model = tiny_int8_program().program.module()
    assert isinstance(model, GraphModule)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if name.endswith("bias")}
    assert round_biases(model) == len(before) >= 3
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
