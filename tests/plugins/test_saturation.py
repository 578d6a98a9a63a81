"""What goes into gates is rounded between the values that gates tell apart."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

from edgeopt.networks.bits import rounding_of
from edgeopt.networks.capture import capture
from edgeopt.networks.layers import operator_name
from edgeopt_executorch.quantizer import build_xnnpack
from edgeopt_torchao.quantize.convert import convert
from edgeopt_torchao.quantize.prepare import calibrate, prepare_ptq, prepare_qat

SIZE = 12
WIDE = 60.0  # how many times larger than usual a layer's values are


class Gated(nn.Module):
    """A convolution of large values before a gate; with `also_read`, something else reads them too."""

    def __init__(self, gate: nn.Module, also_read: bool = False) -> None:
        super().__init__()
        self.stem, self.gated = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), nn.Conv2d(8, 8, 1)
        self.gate, self.also_read = gate, also_read
        with torch.no_grad():
            self.gated.weight *= WIDE

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values = self.gated(self.stem(images))
        opened = self.gate(values)
        return (opened + values if self.also_read else opened).mean((2, 3))


def images(count: int) -> torch.Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def quantized(net: nn.Module, qat: bool) -> GraphModule:
    program = capture(net, images(2), (1, 64))
    quantizer = build_xnnpack(per_channel=True, qat=qat)
    prepared = prepare_qat(program, quantizer) if qat else prepare_ptq(program, quantizer)
    calibrate(prepared, [images(32)])
    return convert(prepared)


def range_before(model: GraphModule, operator: str) -> tuple[float, float]:
    """What the integers that an operator reads reach from and to."""
    (reader,) = (node for node in model.graph.nodes if operator_name(node).startswith(operator))
    found = rounding_of(reader.args[0])
    assert found is not None
    return (-128 - found.zero_point) * found.scale, (127 - found.zero_point) * found.scale


@pytest.mark.parametrize("qat", [False, True])
@pytest.mark.parametrize(
    ("gate", "operator", "low", "high"),
    [
        (nn.Hardsigmoid(), "aten.hardsigmoid", -3.0, 3.0),
        (nn.Sigmoid(), "aten.sigmoid", -8.0, 8.0),
        (nn.Hardswish(), "aten.hardswish", -3.0, None),
    ],
    ids=["hardsigmoid", "sigmoid", "hardswish"],
)
def test_a_range_ends_where_its_reader_saturates(
    gate: nn.Module, operator: str, low: float, high: float | None, qat: bool
) -> None:
    torch.manual_seed(0)
    net = Gated(gate).eval()
    with torch.no_grad():
        values, expected = net.gated(net.stem(images(32))), net(images(32))
        assert values.min() < 3 * low and values.max() > 24
        model = quantized(net, qat)
        got = model(images(32))
    least, most = range_before(model, operator)
    assert least == pytest.approx(low, abs=0.1)
    assert most == pytest.approx(float(values.max()) if high is None else high, rel=0.1)
    assert (got - expected).abs().max() < 0.03 * (expected.max() - expected.min())


@pytest.mark.parametrize("qat", [False, True])
def test_a_range_that_something_else_reads_stays(qat: bool) -> None:
    torch.manual_seed(0)
    net = Gated(nn.Hardsigmoid(), also_read=True).eval()
    with torch.no_grad():
        values = net.gated(net.stem(images(32)))
    least, most = range_before(quantized(net, qat), "aten.hardsigmoid")
    assert least == pytest.approx(float(values.min()), rel=0.1)
    assert most == pytest.approx(float(values.max()), rel=0.1)
