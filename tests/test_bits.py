"""What a program says of its bits, and saturation spelled out."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.export import export

from edgeopt.networks.bits import (
    LayerBits,
    Rounding,
    layer_bits,
    narrow_activations,
    packed_layers,
    saturating_activations,
    spell_out_saturation,
)
from edgeopt.networks.layers import operator_name
from edgeopt.options import Options
from edgeopt.plugins.declarations import Bits, PassPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.plugins.use import Use
from edgeopt.recipe.lookup import numerics_of, resolve

operators = torch.ops.quantized_decomposed


def rounded(x: torch.Tensor, scale: float, zero_point: int, low: int, high: int) -> torch.Tensor:
    values = (scale, zero_point, low, high, torch.int8)
    return operators.dequantize_per_tensor(operators.quantize_per_tensor(x, *values), *values)


class Layers(nn.Module):
    """Two layers whose weights take four and eight bits, and a float one; ReLU6, a pooling and a flattening between."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 4)
        self.last = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = rounded(x, 0.1, 0, -128, 127)
        weight = rounded(self.stem.weight, 0.1, 0, -7, 7)
        x = rounded(nn.functional.relu6(nn.functional.conv2d(x, weight, self.stem.bias)), 0.125, -8, -8, 7)
        x = rounded(nn.functional.max_pool2d(x, 2), 0.125, -8, -8, 7)
        x = rounded(x[:, :, 0, 0], 0.25, 0, -4, 3)
        x = nn.functional.linear(x, rounded(self.head.weight, 0.01, 0, -127, 127), self.head.bias)
        return self.last(x)


@pytest.fixture(scope="module")
def program() -> torch.export.ExportedProgram:
    import torch.ao.quantization.fx._decomposed  # registers the operators

    torch.manual_seed(0)
    return export(Layers().eval(), (torch.randn(2, 3, 8, 8),))


def test_bits_are_found_in_the_graph(program: torch.export.ExportedProgram) -> None:
    assert layer_bits(program) == (
        LayerBits("stem", 4, 8),
        LayerBits("head", 8, 3, is_linear=True),
        LayerBits("last", None, None, is_linear=True),
    )
    assert [each.name for each in packed_layers(program)] == ["stem"]


def test_narrow_activations_and_those_that_can_saturate(program: torch.export.ExportedProgram) -> None:
    assert [each.bits for _, each in narrow_activations(program)] == [4, 4, 3]
    assert [each.bits for _, each in saturating_activations(program)] == [4, 3]  # the pooled values lie in the range


def test_spelled_out_saturation_changes_nothing_and_takes_the_relu6_in(program: torch.export.ExportedProgram) -> None:
    import copy

    batch = torch.randn(2, 3, 8, 8) * 9
    before = program.module()(batch)
    spelled = copy.deepcopy(program)
    assert spell_out_saturation(spelled) == 2
    assert torch.equal(spelled.module()(batch), before)
    clamps = [node for node in spelled.graph.nodes if operator_name(node) == "aten.clamp.default"]
    assert [node.args[1:] for node in clamps] == [(0.0, 1.875), (-1.0, 0.75)]
    assert not any("relu6" in operator_name(node) for node in spelled.graph.nodes)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    scale=st.floats(1e-4, 10.0),
    bits=st.integers(2, 7),
    data=st.data(),
    value=st.floats(-1e3, 1e3, allow_nan=False),
)
def test_clamping_before_rounding_is_saturating_behind_it(
    scale: float, bits: int, data: st.DataObject, value: float
) -> None:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    rounding = Rounding(scale, data.draw(st.integers(low, high)), low, high)
    assert rounding.bits == bits

    def quantize(x: torch.Tensor, low: int, high: int) -> torch.Tensor:
        return operators.quantize_per_tensor(x, scale, rounding.zero_point, low, high, torch.int8)

    x = torch.tensor([value, math.inf, -math.inf])
    assert torch.equal(quantize(x, low, high), quantize(x.clamp(*rounding.values), -128, 127))


def test_passes_say_what_bits_they_give() -> None:
    plugin = PassPlugin("low", "Few bits.", Options, apply=lambda state, *_: state, bits=lambda _: Bits(4, 6))
    train = resolve(PassPlugin, "train", {}, load_registry())
    assert numerics_of([train], "torch").bits == Bits(8, 8)
    assert numerics_of([Use(plugin, Options()), train], "torch").bits == Bits(4, 6)


@pytest.mark.parametrize(
    ("options", "bits"),
    [({}, Bits(8, 8)), ({"weight_bits": 4, "activation_bits": 6}, Bits(4, 6)), ({"average_bits": 5.0}, Bits(8, 8))],
)
def test_the_options_of_ptq_tell_their_bits(options: dict[str, float], bits: Bits) -> None:
    assert numerics_of([resolve(PassPlugin, "ptq", options, load_registry())], "torch").bits == bits
