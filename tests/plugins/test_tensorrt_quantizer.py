"""The numerics of TensorRT: what is quantized, how, and what stays in float."""

from __future__ import annotations

import onnx
import pytest
import torch
from tensorrt_programs import LAYERS, as_state, batches, quantized, small_resnet
from torch import nn
from torch.fx import GraphModule, Node

from edgeopt.errors import NothingChangedError
from edgeopt.networks.capture import capture, export_program
from edgeopt.plugins.declarations import PassPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve
from edgeopt.testing import pass_context, tiny_data, tiny_model
from edgeopt_executorch.quantizer import build_xnnpack
from edgeopt_tensorrt.graph_check import find_problems
from edgeopt_tensorrt.onnx_file import write_onnx
from edgeopt_tensorrt.quantizer import build_tensorrt
from edgeopt_torchao.bits.rules import IN_FLOAT, BitRules, NarrowingQuantizer
from edgeopt_torchao.graph.layers import count_quantized
from edgeopt_torchao.quantize.convert import convert
from edgeopt_torchao.quantize.prepare import calibrate, prepare_ptq

aten = torch.ops.aten
operators = torch.ops.quantized_decomposed


@pytest.fixture(scope="module", params=[False, True], ids=["ptq", "qat"])
def converted(request: pytest.FixtureRequest) -> GraphModule:
    return quantized(small_resnet(), qat=request.param)


def nodes(model: GraphModule, *targets: object) -> list[Node]:
    return [node for node in model.graph.nodes if node.target in targets]


def is_dequantized(node: object) -> bool:
    return isinstance(node, Node) and "dequantize_per_" in str(node.target)


def value(model: GraphModule, node: Node) -> torch.Tensor:
    tensor = getattr(model, str(node.target))
    assert isinstance(tensor, torch.Tensor)
    return tensor


def test_every_layer_is_quantized_on_both_sides(converted: GraphModule) -> None:
    counts = count_quantized(export_program(converted, batches(1)[0], (1, 64)))
    assert (counts.layers, counts.quantized, counts.float_layers) == (LAYERS, LAYERS, ())


def test_activations_are_symmetric_int8_with_one_scale(converted: GraphModule) -> None:
    activations = nodes(converted, operators.quantize_per_tensor.default)
    assert activations
    for node in activations:
        _, scale, zero_point, low, high, dtype = node.args
        assert (zero_point, low, high, dtype) == (0, -128, 127, torch.int8)
        assert isinstance(scale, float)
        assert scale > 0
    assert not nodes(converted, operators.quantize_per_tensor.tensor)


def test_weights_are_symmetric_int8_with_a_scale_for_each_output_channel(converted: GraphModule) -> None:
    weights = nodes(converted, operators.quantize_per_channel.default)
    assert len(weights) == LAYERS
    for node in weights:
        weight, scales, zero_points, axis, low, high, dtype = node.args
        channels = converted.get_parameter(str(weight.target)).shape[0]
        assert (axis, low, high, dtype) == (0, -127, 127, torch.int8)
        assert value(converted, scales).shape == (channels,)
        assert value(converted, scales).unique().numel() > 1
        assert not value(converted, zero_points).any()


def test_biases_stay_in_float(converted: GraphModule) -> None:
    for layer in nodes(converted, aten.conv2d.default, aten.linear.default):
        bias = layer.args[2]
        assert isinstance(bias, Node)
        assert bias.op == "get_attr"
        assert converted.get_parameter(str(bias.target)).dtype == torch.float32


def test_the_identity_side_of_a_sum_is_quantized_and_the_other_is_not(converted: GraphModule) -> None:
    sums = nodes(converted, aten.add.Tensor, aten.add_.Tensor)
    assert [[is_dequantized(side) for side in node.args[:2]] for node in sums] == [[False, True], [False, True]]
    for node in sums:
        assert node.args[0].target is aten.conv2d.default
    # The block without a shortcut adds the very integers that its first convolution reads.
    same = sums[0].args[1]
    assert same.args[0] in [node.args[0] for node in nodes(converted, same.target) if node is not same]


def test_outputs_and_other_operators_stay_in_float(converted: GraphModule) -> None:
    quantized_here = [node.args[0] for node in nodes(converted, operators.quantize_per_tensor.default)]
    assert len(quantized_here) == len(set(quantized_here)) == LAYERS  # the stem's input, …, and one shortcut
    (output,) = nodes(converted, "output")
    assert output.args[0][0].target is aten.linear.default


def test_without_residual_sums_stay_in_float() -> None:
    model = quantized(small_resnet(), residual=False)
    for node in nodes(model, aten.add.Tensor, aten.add_.Tensor):
        assert not any(map(is_dequantized, node.args[:2]))


@pytest.mark.parametrize("converted", [False], ids=["ptq"], indirect=True)  # training moves the statistics of BatchNorm
def test_the_quantized_network_still_computes_the_function(converted: GraphModule) -> None:
    batch = torch.cat(batches(3))
    with torch.no_grad():
        expected, got = small_resnet()(batch), converted(batch)
    assert (expected - got).abs().max() <= 0.05 * (expected.max() - expected.min())


class _Odd(nn.Module):
    """A sum of a tensor with itself, a sum that is broadcast, and a convolution whose weight the
    image has a part in.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.weight = nn.Parameter(torch.randn(4, 4, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        out = self.conv(images)
        out = out + out
        out = out + out.mean((2, 3), keepdim=True)
        return nn.functional.conv2d(out, self.weight * images.mean()).mean((2, 3))


def test_what_is_no_residual_and_no_plain_layer_stays_in_float() -> None:
    model = quantized(_Odd())
    assert [is_dequantized(node.args[0]) for node in nodes(model, aten.conv2d.default)] == [True, False]
    assert not any(is_dequantized(side) for node in nodes(model, aten.add.Tensor) for side in node.args[:2])


def test_a_network_without_layers_is_refused() -> None:
    class Nothing(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((2, 3))

    program = capture(Nothing(), batches(1)[0], (1, 8))
    with pytest.raises(NothingChangedError, match="TensorRtQuantizer found nothing"):
        prepare_ptq(program, build_tensorrt(qat=False))


@pytest.mark.parametrize("name", ["ptq", "qat"])
def test_the_public_passes_work_with_it(name: str, tmp_path) -> None:
    options = {"quantizer": "tensorrt"} | ({"epochs": 2, "batch_size": 8} if name == "qat" else {})
    use = resolve(PassPlugin, name, options, load_registry())
    data = tiny_data()
    state = use.plugin.apply(tiny_model(data), use.options, pass_context(tmp_path, data))
    facts = state.history[-1].facts
    assert (state.precision, facts["quantizer"]) == ("int8", "tensorrt")
    assert facts["layers"] == facts["layers_quantized"] == 4
    zero_points = {
        node.args[2] for node in state.program.graph.nodes if node.target is operators.quantize_per_tensor.default
    }
    assert zero_points == {0}


def test_a_layer_that_is_kept_in_float_may_read_what_is_rounded_for_others() -> None:
    """As the last layers of a detector do, which give its boxes."""
    kept = BitRules(layers={"same.conv2": IN_FLOAT, "head": IN_FLOAT})
    quantizer = NarrowingQuantizer(build_xnnpack(per_channel=True, qat=False, zero_points=False), kept)
    prepared = prepare_ptq(capture(small_resnet(), batches(1)[0], (1, 64)), quantizer)
    calibrate(prepared, batches(3))
    state = as_state(convert(prepared), "int8")
    file = write_onnx(state, "{}", 20, "program")
    assert {each.module for each in file.layers} - {each.module for each in file.quantized} == set(kept.layers)
    assert len(file.quantized) == LAYERS - len(kept.layers)
    model = onnx.load_from_string(file.content)
    (problem,) = find_problems(model, {"head"})
    assert "its weight does not come from DequantizeLinear" in problem.message
