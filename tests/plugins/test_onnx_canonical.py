"""Every rewrite of the canonical form keeps each bit of what the file computes, and does what the fuser needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdq_graphs import Chain, images, kinds, run

from edgeopt.errors import ExportError
from edgeopt_onnx.fusion import fused
from edgeopt_onnx.rewrites import (
    REWRITES,
    canonicalize,
    clip_behind_quantization,
    clip_integers,
    make_activations_unsigned,
    merge_requantization,
    move_layout_to_integers,
    pool_averages,
    remove_redundant_clips,
    require_symmetric,
    restore_float_biases,
)

SCALES = st.floats(1e-3, 0.2).map(lambda value: float(np.float32(value)))
ZERO_POINTS = st.integers(-128, 127)
BOUNDS = st.none() | st.floats(-8, 8).map(lambda value: float(np.float32(value)))
FEW = settings(max_examples=40, deadline=None, derandomize=True)


def changed(
    chain: Chain, rewrite: Callable[[onnx_ir.Graph], int], channels: int = 4
) -> tuple[int, onnx_ir.Model, np.ndarray, np.ndarray]:
    """How often a rewrite was made, the model after it, and what the model gave before and gives after."""
    model = chain.model(channels)
    batch = images(channels)
    before = run(model, batch)
    count = rewrite(model.graph)
    return count, model, before, run(model, batch)


@FEW
@given(scale=SCALES, zero_point=ZERO_POINTS, low=BOUNDS, high=BOUNDS, relu=st.booleans())
def test_removing_a_clip_is_exact(
    scale: float, zero_point: int, low: float | None, high: float | None, relu: bool
) -> None:
    if low is not None and high is not None and low > high:
        low, high = high, low
    chain = Chain()
    chain = chain.add("Relu") if relu else chain.clip(low, high)
    count, model, before, after = changed(chain.round(scale, zero_point), remove_redundant_clips)
    assert np.array_equal(before, after)
    assert count == 1 - sum(kind in ("Relu", "Clip") for kind in kinds(model))


@pytest.mark.parametrize(
    ("zero_point", "removed"), [(-128, 1), (-127, 0), (0, 0)], ids=["range from 0", "one step below 0", "symmetric"]
)
def test_a_relu_is_redundant_where_the_range_begins_at_zero(zero_point: int, removed: int) -> None:
    count, *_ = changed(Chain().add("Relu").round(0.02, zero_point), remove_redundant_clips)
    assert count == removed


def test_a_relu_that_another_operator_reads_stays() -> None:
    chain = Chain().add("Relu")
    relu = chain.value
    rounded = chain.round(0.02, -128).value
    chain.at(relu).add("Add", rounded)
    count, _, before, after = changed(chain, remove_redundant_clips)
    assert count == 0
    assert np.array_equal(before, after)


@FEW
@given(scale=SCALES, zero_point=ZERO_POINTS, other=st.none() | SCALES)
def test_merging_a_requantization_is_exact(scale: float, zero_point: int, other: float | None) -> None:
    chain = Chain().round(scale, zero_point).round(other or scale, zero_point)
    count, _, before, after = changed(chain, merge_requantization)
    assert count == ((other or scale) == scale)
    assert np.array_equal(before, after)


@FEW
@given(scale=SCALES, zero_point=ZERO_POINTS)
def test_unsigned_activations_are_exact(scale: float, zero_point: int) -> None:
    chain = Chain().round(scale, zero_point).convolution(6, 3).round(scale * 4, -zero_point - 1).add("HardSwish")
    count, model, before, after = changed(chain.round(scale, zero_point), make_activations_unsigned)
    assert np.array_equal(before, after)
    assert count == 3
    types = {node.outputs[0].dtype for node in model.graph if node.op_type == "QuantizeLinear"}
    assert types == {onnx_ir.DataType.UINT8}
    weights = [value.dtype for value in model.graph.initializers.values() if len(value.shape or ()) == 4]
    assert weights == [onnx_ir.DataType.INT8]


def test_one_quantizer_read_by_two_layers_becomes_unsigned_for_both() -> None:
    chain = Chain().quantize(0.05, 3)
    integers = chain.value
    left = chain.dequantize(0.05, 3).convolution(4).value
    chain.at(integers).dequantize(0.05, 3).add("Add", left)
    count, _, before, after = changed(chain, make_activations_unsigned)
    assert count == 1
    assert np.array_equal(before, after)


@FEW
@given(scale=SCALES, zero_point=ZERO_POINTS, low=BOUNDS, high=BOUNDS, unsigned=st.booleans())
def test_clipping_integers_is_exact(
    scale: float, zero_point: int, low: float | None, high: float | None, unsigned: bool
) -> None:
    if low is not None and high is not None and low > high:
        low, high = high, low
    dtype, zero_point = (np.uint8, zero_point + 128) if unsigned else (np.int8, zero_point)
    chain = Chain().round(scale, zero_point, dtype).clip(low, high).round(scale, zero_point, dtype)
    count, model, before, after = changed(chain, clip_integers)
    assert count == 1
    assert kinds(model).count("QuantizeLinear") == 1
    assert np.array_equal(before, after)


@FEW
@given(scale=SCALES, zero_point=ZERO_POINTS, other=SCALES, low=BOUNDS, high=BOUNDS, unsigned=st.booleans())
def test_clipping_behind_quantization_is_exact(
    scale: float, zero_point: int, other: float, low: float | None, high: float | None, unsigned: bool
) -> None:
    """Also where two quantizers of other scales read the clipped values."""
    if low is not None and high is not None and low > high:
        low, high = high, low
    dtype, zero_point = (np.uint8, zero_point + 128) if unsigned else (np.int8, zero_point)
    chain = Chain().convolution(4).clip(low, high)
    clipped = chain.value
    left = chain.round(scale, zero_point, dtype).value
    chain.at(clipped).round(other, zero_point, dtype).add("Add", left)
    count, model, before, after = changed(chain, clip_behind_quantization)
    assert count == 1
    assert np.array_equal(before, after)
    assert all(node.inputs[0].dtype != onnx_ir.DataType.FLOAT for node in model.graph if node.op_type == "Clip")


def test_a_layer_with_relu_and_a_symmetric_range_is_fused(tmp_path: Path) -> None:
    chain = Chain().round(0.05, 0).convolution(4).add("Relu").round(0.02, 0).convolution(4).clip(0, 6).round(0.05, 0)
    model = chain.model()
    before = run(model, images())
    canonicalize(model, "x86")
    assert np.array_equal(run(model, images()), before)
    onnx_ir.save(model, tmp_path / "model.onnx")
    assert fused(tmp_path / "model.onnx").operators["QLinearConv"] == 2


def test_a_clip_between_different_scales_stays() -> None:
    count, _, before, after = changed(Chain().round(0.05, 0).clip(0, 6).round(0.02, -128), clip_integers)
    assert count == 0
    assert np.array_equal(before, after)


@FEW
@given(scale=SCALES, zero_point=ZERO_POINTS, permutation=st.permutations(range(4)), again=st.booleans())
def test_moving_integers_is_exact(scale: float, zero_point: int, permutation: list[int], again: bool) -> None:
    chain = Chain().round(scale, zero_point).add("Transpose", perm=permutation).add("Flatten")
    chain = chain.round(scale, zero_point) if again else chain.add("HardSwish")
    count, model, before, after = changed(chain, move_layout_to_integers)
    assert count == 2
    assert [kind for kind in kinds(model) if kind != "DequantizeLinear"][:3] == [
        "QuantizeLinear",
        "Transpose",
        "Flatten",
    ]
    assert np.array_equal(before, after)


def test_pooling_differs_by_no_more_than_the_order_of_additions() -> None:
    def pooled(scale: float) -> Chain:
        chain = Chain().round(0.05, 0)
        return chain.add("ReduceMean", chain.constant(np.array([2, 3]))).round(scale, 0)

    count, model, before, after = changed(pooled(0.02), pool_averages)
    assert count == 1
    assert "ReduceMean" not in kinds(model)
    assert np.abs(before - after).max() <= np.float32(0.02) * 1.001  # one step
    assert (before == after).mean() > 0.9


@pytest.mark.parametrize("axes", [[1, 2], [2], [1, 2, 3]])
def test_other_means_stay(axes: list[int]) -> None:
    chain = Chain().round(0.05, 0)
    chain.add("ReduceMean", chain.constant(np.array(axes))).round(0.02, 0)
    count, *_ = changed(chain, pool_averages)
    assert count == 0


def with_int32_bias(seed: int) -> Chain:
    chain = Chain(seed=seed).round(0.05, 0)
    random = np.random.default_rng(seed)
    integers = chain.constant(random.integers(-(2**24), 2**24, 6).astype(np.int32))
    scale = chain.constant(random.uniform(1e-6, 1e-3, 6).astype(np.float32))
    given = chain.value
    bias = chain.at(integers).add("DequantizeLinear", scale, axis=0).value
    return chain.at(given).convolution(6, bias=bias)


@pytest.mark.parametrize("seed", range(5))
def test_restoring_float_biases_is_exact(seed: int) -> None:
    count, model, before, after = changed(with_int32_bias(seed), restore_float_biases)
    assert count == 1
    assert np.array_equal(before, after)
    assert kinds(model).count("DequantizeLinear") == 2  # activation and weights


def test_tensorrt_refuses_zero_points() -> None:
    with pytest.raises(ExportError, match="symmetric") as caught:
        require_symmetric(Chain().round(0.05, 0).round(0.05, 3).model().graph)
    assert caught.value.problems[0].option == "target"
    require_symmetric(Chain().round(0.05, 0).convolution(4).round(0.1, 0).model().graph)


def test_tensorrt_gets_no_uint8_no_integer_clip_and_no_int32() -> None:
    chain = with_int32_bias(0).add("Relu").round(0.1, 0).clip(0, 6).round(0.1, 0)
    model = chain.model()
    batch = images()
    before = run(model, batch)
    canonicalize(model, "tensorrt")
    assert np.array_equal(run(model, batch), before)
    dtypes = {value.dtype for value in model.graph.initializers.values()}
    assert dtypes <= {onnx_ir.DataType.INT8, onnx_ir.DataType.FLOAT}
    floats = [node for node in model.graph if node.op_type == "Clip"]
    assert [node.inputs[0].dtype for node in floats] == [onnx_ir.DataType.FLOAT]


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    target=st.sampled_from(["x86", "arm"]),
    layers=st.lists(
        st.sampled_from(["conv", "relu", "relu, symmetric", "clip", "round", "hardswish", "residual"]),
        min_size=2,
        max_size=7,
    ),
    zero_point=ZERO_POINTS,
)
def test_the_canonical_form_is_exact(target: str, layers: list[str], zero_point: int) -> None:
    chain = Chain().round(0.05, zero_point)
    for layer in layers:
        before = chain.value
        if layer == "conv":
            chain.convolution(4, 3).round(0.3, zero_point)
        elif layer == "relu":
            chain.add("Relu").round(0.1, -128)
        elif layer == "relu, symmetric":
            chain.add("Relu").round(0.05, 0)
        elif layer == "clip":
            chain.clip(0, 6).round(0.1, -128)
        elif layer == "hardswish":
            chain.add("HardSwish").round(0.07, zero_point)
        elif layer == "round":
            chain.round(0.1, -128)
        else:
            chain.convolution(4).round(0.2, zero_point).add("Add", before).round(0.3, 0)
    model = chain.model()
    batch = images()
    before = run(model, batch)
    counts = canonicalize(model, target)
    assert np.array_equal(run(model, batch), before)
    assert set(counts) == {rewrite.__name__ for rewrite in REWRITES[target]}


def test_canonical_twice_is_canonical() -> None:
    chain = Chain().round(0.05, 3).convolution(4).add("Relu").round(0.1, -128).clip(0, 6).round(0.1, -128)
    model = chain.model()
    canonicalize(model, "x86")
    once = onnx_ir.to_proto(model).SerializeToString(deterministic=True)
    assert not any(canonicalize(model, "x86").values())
    assert onnx_ir.to_proto(model).SerializeToString(deterministic=True) == once
