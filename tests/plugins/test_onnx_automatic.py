"""Which operators of an int8 graph stay in float: those that cost more in int8, conversions counted."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import onnx
import onnx_ir
import pytest
from qdq_graphs import Chain, images, kinds, run

from edgeopt_onnx.auto.choice import keep_cheaper_in_float
from edgeopt_onnx.auto.costs import KINDS, X86_VNNI, Costs, OperatorCost
from edgeopt_onnx.rewrites import canonicalize


def mobile_block(channels: int, edge: int) -> onnx_ir.Model:
    """Convolutions apart by hard-swish, which no integer kernel computes."""
    chain = Chain(channels).round(0.05, 0)
    for group in (1, channels, 1):
        chain.convolution(channels, 3 if group > 1 else 1, group).round(0.1, 0).add("HardSwish").round(0.1, -100)
    return sized(chain, channels, edge)


def residual_block(channels: int, edge: int) -> onnx_ir.Model:
    """Dense convolutions that follow each other."""
    chain = Chain(channels).round(0.05, 0)
    for _ in range(3):
        before = chain.value
        chain.convolution(channels, 3).add("Relu").round(0.1, -128)
        chain.convolution(channels, 3).round(0.1, 0).add("Add", before).add("Relu").round(0.1, -128)
    return sized(chain, channels, edge)


def sized(chain: Chain, channels: int, edge: int) -> onnx_ir.Model:
    proto = chain.proto(channels)
    for size, value in zip(proto.graph.input[0].type.tensor_type.shape.dim[2:], (edge, edge), strict=True):
        size.ClearField("dim_param")
        size.dim_value = value
    del proto.graph.value_info[:]
    return onnx_ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def test_hard_swish_keeps_its_convolutions_in_float() -> None:
    model = mobile_block(24, 14)
    batch = images(24, edge=14)
    left = keep_cheaper_in_float(model.graph, X86_VNNI)
    canonicalize(model, "x86")
    assert len(left) == 3
    assert "QuantizeLinear" not in kinds(model)
    weights = [value.dtype for value in model.graph.initializers.values() if len(value.shape or ()) == 4]
    assert weights.count(onnx_ir.DataType.INT8) == 3, "weights stay int8 in the file"
    assert np.isfinite(run(model, batch)).all()


def test_dense_convolutions_stay_int8() -> None:
    model = residual_block(64, 28)
    before = onnx_ir.to_proto(model).SerializeToString(deterministic=True)
    assert keep_cheaper_in_float(model.graph, X86_VNNI) == ()
    assert onnx_ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_a_large_fully_connected_layer_stays_int8_though_it_gives_floats() -> None:
    chain = Chain(2048).round(0.05, 0).add("Flatten").round(0.05, 0)
    random = np.random.default_rng(0)
    given = chain.value
    integers = chain.constant(random.integers(-127, 128, (2048, 1000), dtype=np.int8))
    scale = chain.constant(np.full(1000, 0.01, np.float32))
    weights = chain.at(integers).add("DequantizeLinear", scale, axis=1).value
    chain.at(given).add("MatMul", weights)
    chain.add("Add", chain.constant(random.standard_normal(1000).astype(np.float32)))
    model = sized(chain, 2048, 1)
    assert keep_cheaper_in_float(model.graph, X86_VNNI) == ()
    assert "DequantizeLinear" in kinds(model)


def test_what_is_left_in_float_computes_the_same_without_the_rounding() -> None:
    """Finer steps round less: with very fine ones, the two files agree to within them."""
    chain = Chain(8).round(0.05, 0)
    chain.convolution(8).round(0.02, 0).add("HardSwish").round(0.02, 0)
    model = sized(chain, 8, 6)
    batch = (images(8) * 0.1).clip(-1, 1)
    before = run(model, batch)
    assert keep_cheaper_in_float(model.graph, X86_VNNI)
    difference = np.abs(run(model, batch) - before)
    assert 0 < difference.max() <= 0.05 * 2 * 8 * 2.54 / 2 + 0.04


def test_relu_of_a_float_convolution_survives() -> None:
    chain = Chain(8).round(0.05, 0).convolution(8).add("Relu").round(0.05, -128).add("HardSwish").round(0.05, 0)
    model = sized(chain, 8, 6)
    keep_cheaper_in_float(model.graph, X86_VNNI)
    canonicalize(model, "x86")
    assert kinds(model).count("Relu") == 1


@pytest.mark.parametrize("seed", range(6))
def test_the_cut_is_the_cheapest_choice(seed: int) -> None:
    """Against all choices, tried one by one on a chain of four convolutions with costs drawn at random."""
    random = np.random.default_rng(seed)
    costs = {
        kind: (OperatorCost(int(random.integers(1, 100_000)), 0.0), OperatorCost(int(random.integers(1, 100_000)), 0.0))
        for kind in KINDS
    }
    conversion = OperatorCost(int(random.integers(1, 60_000)), 0.0)
    costs["conversion"] = (conversion, conversion)
    chain = Chain(16).round(0.05, 0)
    layers = [("pointwise", 1, 1), ("depthwise", 3, 16), ("dense", 3, 1), ("pointwise", 1, 1)]
    for _, kernel, group in layers:
        chain.convolution(16, kernel, group).round(0.05, 0)
    model = sized(chain, 16, 8)
    names = [node.name for node in model.graph if node.op_type == "Conv"]
    left = keep_cheaper_in_float(model.graph, Costs("x86_64", "dice", "none", costs))

    def cost(choice: tuple[bool, ...]) -> int:
        """True for int8; what comes in and goes out is float."""
        own = sum(costs[kind][int8].call for (kind, *_), int8 in zip(layers, choice, strict=True))
        sides = (False, *choice, False)
        return own + conversion.call * sum(a != b for a, b in pairwise(sides))

    chosen = tuple(name not in left for name in names)
    assert cost(chosen) == min(map(cost, product((False, True), repeat=len(layers))))
