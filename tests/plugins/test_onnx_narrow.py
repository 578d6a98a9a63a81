"""Fewer than eight bits in an ONNX file: four bits take four bits, and activations saturate where the program's do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper
from qdq_graphs import run
from small_programs import capture, exact, float_net, images, outputs, quantized
from torch.export import ExportedProgram

from edgeopt.errors import ExportError, NothingChangedError
from edgeopt.plugins.declarations import Bits, ExporterPlugin, Numerics
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve
from edgeopt_onnx.auto.costs import X86_VNNI
from edgeopt_onnx.conversion import export_onnx
from edgeopt_onnx.int4 import store_narrow_weights
from edgeopt_onnx.predictor import OnnxPredictor


@pytest.fixture(scope="module")
def w4a4() -> ExportedProgram:
    return quantized(capture(float_net()), weight_bits=4, activation_bits=4)


def answers(path: Path, batch: np.ndarray) -> np.ndarray:
    with OnnxPredictor(path, threads=1) as predictor:
        return predictor.predict(batch)[0]


@pytest.mark.parametrize(
    ("weight_bits", "activation_bits", "target"), [(4, 4, "x86"), (2, 2, "x86"), (6, 5, "x86"), (4, 4, "arm")]
)
def test_what_saturates_in_the_program_saturates_in_the_file(
    tmp_path: Path, weight_bits: int, activation_bits: int, target: str
) -> None:
    program = exact(weight_bits, activation_bits)
    report = export_onnx(program, tmp_path / "model.onnx", card_json="{}", target=target)
    batch = images(16)
    expected = outputs(program, batch).numpy()
    assert np.unique(expected).size > 3  # the largest of many values, which is where each of them saturates
    assert np.array_equal(answers(report.path, batch.numpy()), expected)
    assert report.int4_layers == (5 if weight_bits <= 4 else 0)
    if target == "x86":
        assert report.fused_layers == report.weighted_layers == 5  # one weight is read twice


def test_four_bits_are_two_to_a_byte_and_at_most_sixteen_values(w4a4: ExportedProgram, tmp_path: Path) -> None:
    report = export_onnx(w4a4, tmp_path / "model.onnx", card_json="{}")
    model = onnx.load(report.path)
    weights = [each for each in model.graph.initializer if len(each.dims) > 1]
    assert (report.opset, report.int4_layers) == (21, 4)
    assert {each.data_type for each in weights} == {TensorProto.INT4}
    for each in weights:
        assert len(each.raw_data) == (np.prod(each.dims) + 1) // 2
        channels = numpy_helper.to_array(each).astype(np.int8).reshape(each.dims[0], -1)
        assert max(np.unique(channel).size for channel in channels) <= 16
        assert np.abs(channels).max() == 7
    batch = images(33)
    expected, got = outputs(w4a4, batch).numpy(), answers(report.path, batch.numpy())
    assert np.mean(np.abs(got - expected) > 1e-6) < 0.1  # a sum between two steps, or a bias that a kernel rounds


def test_an_operator_set_without_four_bits_is_refused(w4a4: ExportedProgram, tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match="opset 20 has no integers of four bits, and weights of this program take 4"
    ) as e:
        export_onnx(w4a4, tmp_path / "model.onnx", card_json="{}", opset=20)
    assert e.value.problems[0].option == "opset"
    plugin, numerics = resolve(ExporterPlugin, "onnx", {"opset": 20}, load_registry()), Numerics(bits=Bits(4, 8))
    assert plugin.plugin.check is not None
    (problem,) = plugin.plugin.check(plugin.options, numerics)
    assert problem.option == "opset"
    assert not list(plugin.plugin.check(plugin.options, Numerics(bits=Bits(5, 2))))
    default = resolve(ExporterPlugin, "onnx", {}, load_registry())
    assert not list(plugin.plugin.check(default.options, numerics))


@pytest.mark.parametrize(("name", "options"), [("onnx", {"target": "tensorrt"}), ("tensorrt", {})])
def test_tensorrt_is_told_before_anything_runs(name: str, options: dict[str, str]) -> None:
    use = resolve(ExporterPlugin, name, options, load_registry())
    assert use.plugin.check is not None
    (problem,) = use.plugin.check(use.options, Numerics(bits=Bits(4, 4)))
    assert "no convolution with weights of 4 bits" in str(problem)
    assert not list(use.plugin.check(use.options, Numerics(bits=Bits(6, 4))))


def test_tensorrt_is_refused_four_bit_weights_and_given_clips_for_activations(
    w4a4: ExportedProgram, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="no convolution with weights of 4 bits"):
        export_onnx(w4a4, tmp_path / "a.onnx", card_json="{}", target="tensorrt")
    narrow = quantized(capture(float_net()), 6, 4, zero_points=False)
    report = export_onnx(narrow, tmp_path / "b.onnx", card_json="{}", target="tensorrt")
    kinds = [node.op_type for node in onnx.load(report.path).graph.node]
    assert "Clip" in kinds
    batch = images(8)
    difference = np.abs(answers(report.path, batch.numpy()) - outputs(narrow, batch).numpy())
    assert np.mean(difference > 1e-6) < 0.1


def test_auto_keeps_four_bits(w4a4: ExportedProgram, tmp_path: Path) -> None:
    report = export_onnx(w4a4, tmp_path / "model.onnx", card_json="{}", precision="auto", costs=X86_VNNI)
    kinds = [each.data_type for each in onnx.load(report.path).graph.initializer if len(each.dims) > 1]
    assert report.int4_layers == kinds.count(TensorProto.INT4) == 4
    assert TensorProto.INT8 not in kinds
    assert np.isfinite(answers(report.path, images(3).numpy())).all()


def layer(integers: np.ndarray, scale: np.ndarray) -> onnx_ir.Model:
    """A pointwise convolution with these weights, int8 behind DequantizeLinear."""
    nodes = [
        onnx.helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], name="d", axis=0),
        onnx.helper.make_node("Conv", ["input", "d"], ["output"], name="c"),
    ]
    constants = [
        numpy_helper.from_array(integers, "w"),
        numpy_helper.from_array(scale, "s"),
        numpy_helper.from_array(np.zeros(len(scale), np.int8), "z"),
    ]
    values = [
        onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size, None, None])
        for name, size in (("input", integers.shape[1]), ("output", integers.shape[0]))
    ]
    graph = onnx.helper.make_graph(nodes, "g", values[:1], values[1:], constants)
    return onnx_ir.from_proto(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    )


@settings(max_examples=30, deadline=None, derandomize=True)
@given(outputs_=st.integers(1, 5), inputs=st.integers(1, 5), bits=st.integers(2, 7), seed=st.integers(0, 99))
def test_storing_is_exact_for_any_size(outputs_: int, inputs: int, bits: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    half = 2 ** (bits - 1) - 1
    integers = random.integers(-half, half + 1, (outputs_, inputs, 1, 1)).astype(np.int8)
    scale = random.uniform(1e-3, 1, outputs_).astype(np.float32)
    batch = random.standard_normal((2, inputs, 3, 3)).astype(np.float32)
    model = layer(integers, scale)
    before = run(model, batch)
    store_narrow_weights(model.graph, int4_layers=1 if bits <= 4 else 0)
    stored = model.graph.initializers["w"].const_value
    assert stored is not None
    if bits <= 4:
        assert stored.dtype == onnx_ir.DataType.INT4
        assert stored.nbytes == (integers.size + 1) // 2
        assert np.array_equal(stored.numpy().astype(np.int8), integers)
    assert np.array_equal(run(model, batch), before)


def test_weights_that_do_not_fit_are_not_called_packed() -> None:
    model = layer(np.full((2, 1, 1, 1), 9, np.int8), np.ones(2, np.float32))
    with pytest.raises(
        NothingChangedError, match="1 layers of the program have weights of four bits or fewer, and 0 of"
    ):
        store_narrow_weights(model.graph, int4_layers=1)
