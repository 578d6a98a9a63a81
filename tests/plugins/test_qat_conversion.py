"""Conversion after training: compared layer by layer in rounding steps, and what leaves its own step is named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from test_quantization import BATCHES, images, small_net, train, with_statistics
from torch import nn
from torch.fx import GraphModule, Node

from edgeopt.errors import FunctionChangedError
from edgeopt.networks.capture import capture
from edgeopt.networks.tensors import named_tensor
from edgeopt.plugins import Bits
from edgeopt_executorch.quantizer import build_xnnpack
from edgeopt_torchao.bits.learned_step import start_steps
from edgeopt_torchao.bits.rules import BitRules, NarrowingQuantizer
from edgeopt_torchao.quantize.agreement import compare
from edgeopt_torchao.quantize.conversion_check import check_conversion
from edgeopt_torchao.quantize.convert import convert
from edgeopt_torchao.quantize.prepare import prepare_qat
from edgeopt_torchvision.compat import import_torchvision


def mobilenet_v2() -> nn.Module:
    blocks = [[1, 8, 1, 1], [6, 12, 2, 2]]  # expansion, channels, repeats, stride
    return import_torchvision().models.MobileNetV2(10, inverted_residual_setting=blocks, width_mult=0.5)


def mobilenet_v3() -> nn.Module:
    from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3

    rows = [(16, 3, 16, 16, True, "RE", 2), (16, 3, 32, 24, False, "HS", 2), (24, 5, 48, 24, True, "HS", 1)]
    return MobileNetV3([InvertedResidualConfig(*row, 1, 1.0) for row in rows], 64, num_classes=10)


def resnet() -> nn.Module:
    models = import_torchvision().models
    return models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=10, width_per_group=64)


def efficientnet() -> nn.Module:
    from torchvision.models.efficientnet import EfficientNet, MBConvConfig

    rows = [(1, 3, 1, 16, 16, 1), (6, 5, 2, 16, 24, 2)]
    return EfficientNet([MBConvConfig(*row) for row in rows], 0.2, num_classes=10)


def learned_from(
    make: Callable[[], nn.Module], bits: int, *, zero_points: bool = True, learned_up_to_bits: int = 0
) -> tuple[GraphModule, GraphModule]:
    """A network that was trained for three steps with its quantization, and what conversion makes of it."""
    import_torchvision()
    torch.manual_seed(0)
    program = capture(with_statistics(make()), images(), BATCHES)
    quantizer = build_xnnpack(per_channel=True, qat=True, zero_points=zero_points)
    if bits < 8:
        quantizer = NarrowingQuantizer(quantizer, BitRules(Bits(bits, bits)))
    prepared = prepare_qat(program, quantizer, learned_up_to_bits)
    if learned_up_to_bits:
        start_steps(prepared, [images(16)])
    train(prepared)
    return prepared, convert(prepared)


@pytest.mark.parametrize("bits", [8, 6, 4])
@pytest.mark.parametrize(
    "make", [small_net, mobilenet_v2, mobilenet_v3, resnet, efficientnet], ids=lambda f: f.__name__
)
def test_every_layer_stays_in_its_own_rounding_step(make: Callable[[], nn.Module], bits: int) -> None:
    prepared, converted = learned_from(make, bits, learned_up_to_bits=4 if bits == 4 else 0)
    before = prepared(images(4, seed=5))
    check = check_conversion(prepared, converted, [images(8, seed=9), images(8, seed=10)])
    check.require_equal()
    layers = {tensor.layer for tensor in check.tensors}
    weighted = {name for name, child in prepared.named_modules() if isinstance(child, (nn.Conv2d, nn.Linear))}
    assert {f"{name}.weight" for name in weighted} <= layers
    assert torch.equal(prepared(images(4, seed=5)), before)
    if bits > 4:  # of 4 bits, averages lie on borders by the dozen, and what falls to either side adds up
        assert compare(prepared, converted, [images(16, seed=9)]).top1 >= 15 / 16


# ---- conversions that are broken on purpose ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair() -> tuple[GraphModule, GraphModule]:
    """Without zero points, so that a ReLU is not hidden by a range that begins at 0."""
    return learned_from(small_net, 8, zero_points=False)


def rounding(converted: GraphModule, layer: str) -> Node:
    """The quantize node behind the first operator of a module, or that of a weight."""
    for node in converted.graph.nodes:
        if "quantize_per_" not in str(node.target) or "dequantize" in str(node.target):
            continue
        source = node.args[0]
        if source.op == "get_attr" and str(source.target) == layer:
            return node
        stack = list((source.meta.get("nn_module_stack") or {}).values())
        if source.op == "call_function" and stack and stack[-1][0] == layer:
            return node
    raise AssertionError(layer)


def dequantizing(quantize: Node) -> list[Node]:
    return [user for user in quantize.users if "dequantize_per_" in str(user.target)]


def other_scale(converted: GraphModule) -> str:
    quantize = rounding(converted, "depthwise.2")
    for node in (quantize, *dequantizing(quantize)):
        node.update_arg(1, node.args[1] * 1.01)
    return "depthwise.2"


def other_zero_point(converted: GraphModule) -> str:
    quantize = rounding(converted, "depthwise.2")
    for node in (quantize, *dequantizing(quantize)):
        node.update_arg(2, node.args[2] + 1)
    return "depthwise.2"


def zero_point_of_one_side(converted: GraphModule) -> str:
    for node in dequantizing(rounding(converted, "depthwise.2")):
        node.update_arg(2, node.args[2] + 1)
    return "depthwise.2"


def no_relu(converted: GraphModule) -> str:
    (relu,) = (node for node in converted.graph.nodes if "relu" in str(node.target))
    relu.target = torch.ops.aten.clone.default
    return "stem.2"


def other_scale_of_a_weight(converted: GraphModule) -> str:
    quantize = rounding(converted, "depthwise.0.weight")
    scale = named_tensor(converted, str(quantize.args[1].target))
    scale.mul_(torch.where(torch.arange(len(scale)) == 3, 1.05, 1.0))
    return "depthwise.0.weight"


def other_weight(converted: GraphModule) -> str:
    weight = named_tensor(converted, "pointwise.0.weight")
    weight.data[2] *= 0.9
    return "pointwise.0.weight"


def other_bias(converted: GraphModule) -> str:
    bias = named_tensor(converted, "stem.0.bias")
    bias.data += 0.02
    return "stem.2"


def other_layer_read(converted: GraphModule) -> str:
    """The sum reads the same side twice."""
    (add,) = (node for node in converted.graph.nodes if "aten.add" in str(node.target))
    add.args = (add.args[0], add.args[0])
    return "add"


@pytest.mark.parametrize(
    "broken",
    [
        other_scale,
        other_zero_point,
        zero_point_of_one_side,
        no_relu,
        other_scale_of_a_weight,
        other_weight,
        other_bias,
        other_layer_read,
    ],
    ids=lambda f: f.__name__,
)
def test_a_broken_conversion_is_caught_and_its_layer_named(
    broken: Callable[[GraphModule], str], pair: tuple[GraphModule, GraphModule]
) -> None:
    prepared, _ = pair
    converted = convert(prepared)
    with torch.no_grad():
        layer = broken(converted)
    converted.recompile()
    with pytest.raises(FunctionChangedError) as caught:
        check_conversion(prepared, converted, [images(8, seed=9)]).require_equal()
    text = str(caught.value)
    assert f"trained: {layer}" in text
    assert "more tensor" not in text, "whatever comes after it is judged on equal inputs"


def test_a_tensor_that_is_no_longer_rounded_is_named(pair: tuple[GraphModule, GraphModule]) -> None:
    prepared, _ = pair
    converted = convert(prepared)
    quantize = rounding(converted, "depthwise.2")
    for node in dequantizing(quantize):
        node.replace_all_uses_with(quantize.args[0])
    converted.graph.eliminate_dead_code()
    converted.recompile()
    with pytest.raises(FunctionChangedError, match=r"depthwise.2 .* is rounded in the trained module alone"):
        check_conversion(prepared, converted, [images(8)])


def test_there_must_be_an_image(pair: tuple[GraphModule, GraphModule]) -> None:
    with pytest.raises(ValueError, match="no batch"):
        check_conversion(*pair, [])
