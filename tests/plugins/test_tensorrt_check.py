"""The static check of a graph for TensorRT, rule by rule, beside what TensorRT for RTX makes of the same graph."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeopt.errors import ExportError
from edgeopt_tensorrt.build_engine import BuildError, EngineSettings, build_engine
from edgeopt_tensorrt.engine_layers import read_layers
from edgeopt_tensorrt.graph_check import find_problems, quantized_layers, require_tensorrt, weighted_layers

tensorrt_rtx = pytest.importorskip("tensorrt_rtx")

CHANNELS = 16


@dataclass(frozen=True)
class Quantization:
    """Scale and zero point of one Q/DQ pair."""

    scale: Any
    zero_point: Any = field(default_factory=lambda: np.int8(0))
    axis: int = 1


@dataclass(frozen=True)
class Graph:
    """One quantized layer between an input and an output, with something wrong with it or not."""

    kind: str = "Conv"
    activation: Quantization | None = field(default_factory=lambda: Quantization(np.float32(0.02)))
    weight: Quantization | None = field(
        default_factory=lambda: Quantization(np.full(CHANNELS, 0.01, np.float32), axis=0)
    )
    bias: str = "float"
    is_transposed: bool = True  # a Gemm's or MatMul's weight is stored (outputs, inputs)

    @property
    def is_convolution(self) -> bool:
        return self.kind == "Conv"

    def model(self) -> onnx.ModelProto:
        nodes: list[onnx.NodeProto] = []
        constants: dict[str, Any] = {}

        def constant(name: str, value: Any) -> str:
            constants[name] = np.asarray(value)
            return name

        def pair(name: str, given: Quantization, kinds: list[str], source: str) -> str:
            if given.zero_point.shape != np.shape(given.scale):
                given = replace(given, zero_point=np.full(np.shape(given.scale), given.zero_point))
            parameters = [constant(f"{name}.scale", given.scale), constant(f"{name}.zero", given.zero_point)]
            for kind in kinds:
                result = f"{name}.{kind}"
                nodes.append(helper.make_node(kind, [source, *parameters], [result], name=result, axis=given.axis))
                source = result
            return source

        activation = "input"
        if self.activation:
            activation = pair("activation", self.activation, ["QuantizeLinear", "DequantizeLinear"], activation)
        shape = (CHANNELS, CHANNELS, 3, 3) if self.is_convolution else (CHANNELS, CHANNELS)
        integers = np.random.default_rng(0).integers(-127, 128, shape, dtype=np.int8)
        if self.weight:
            weight = pair("body.weight", self.weight, ["DequantizeLinear"], constant("body.weight", integers))
        else:
            weight = constant("body.weight", integers.astype(np.float32))
        if self.kind == "MatMul" and self.is_transposed:
            nodes.append(helper.make_node("Transpose", [weight], ["transposed"], name="transpose", perm=[1, 0]))
            weight = "transposed"
        inputs = [activation, weight]
        if self.kind != "MatMul" and self.bias == "float":
            inputs.append(constant("bias", np.ones(CHANNELS, np.float32)))
        if self.bias == "int32":
            steps = Quantization(np.full(CHANNELS, 2e-4, np.float32), np.zeros(CHANNELS, np.int32), axis=0)
            values = constant("bias", np.ones(CHANNELS, np.int32))
            inputs.append(pair("bias", steps, ["DequantizeLinear"], values))
        attributes = {"Conv": {"pads": [1] * 4}, "Gemm": {"transB": int(self.is_transposed)}}.get(self.kind, {})
        nodes.append(helper.make_node(self.kind, inputs, ["output"], name="layer", **attributes))
        return _model(nodes, constants, [8, 8] if self.is_convolution else [])

    def with_activation(self, **changes: Any) -> Graph:
        return replace(self, activation=replace(self.activation, **changes))

    def with_weight(self, **changes: Any) -> Graph:
        return replace(self, weight=replace(self.weight, **changes))


def _model(nodes: list[onnx.NodeProto], constants: dict[str, Any], image: list[int]) -> onnx.ModelProto:
    shape = ["N", CHANNELS, *image]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def rtx_makes(model: onnx.ModelProto) -> str:
    """What TensorRT for RTX does with the one layer of a graph: "int8", "float", "int8, with a warning", or "error"."""
    image = tuple(size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim)[1:]
    settings = EngineSettings("input", image, batch_max=8, compute_capabilities=("8.6",))
    try:
        engine = build_engine(tensorrt_rtx, model.SerializeToString(), settings)
    except BuildError:
        return "error"
    found = read_layers(engine.plan, weighted_layers(model))
    assert not found.unknown
    is_reinterpreted = any("UINT8" in message for message in engine.messages)
    return ("int8" if found.int8 else "float") + (", with a warning" if is_reinterpreted else "")


def messages(model: onnx.ModelProto) -> str:
    return "\n".join(problem.message for problem in find_problems(model))


CONVOLUTION, GEMM, MATMUL = Graph(), Graph("Gemm"), Graph("MatMul")
SOUND = {
    "conv": CONVOLUTION,
    "conv, one scale for the weight": CONVOLUTION.with_weight(scale=np.float32(0.01)),
    "conv without a bias": replace(CONVOLUTION, bias="none"),
    "gemm": GEMM,
    "gemm, stored the other way": replace(GEMM, is_transposed=False).with_weight(axis=1),
    "matmul": MATMUL,
    "matmul, stored the other way": replace(MATMUL, is_transposed=False).with_weight(axis=1),
}


@pytest.mark.parametrize("name", SOUND)
def test_what_the_check_passes_becomes_int8(name: str) -> None:
    model = SOUND[name].model()
    assert messages(model) == ""
    assert [layer.module for layer in quantized_layers(model)] == ["body"]
    assert rtx_makes(model) == "int8"


BROKEN = {
    "zero point": (CONVOLUTION.with_activation(zero_point=np.int8(3)), "zero point that is not 0", "error"),
    "int32 bias": (replace(CONVOLUTION, bias="int32"), "int32 bias", "error"),
    "uint8": (CONVOLUTION.with_activation(zero_point=np.uint8(0)), "has uint8", "int8, with a warning"),
    "uint8, shifted": (CONVOLUTION.with_activation(zero_point=np.uint8(128)), "has uint8", "error"),
    "activation scale of one dimension": (
        CONVOLUTION.with_activation(scale=np.full(1, 0.02, np.float32)),
        r"scale of shape \(1,\)",
        "float",
    ),
    "activation scale for each channel": (
        CONVOLUTION.with_activation(scale=np.full(CHANNELS, 0.02, np.float32)),
        r"scale of shape \(16,\)",
        "float",
    ),
    "weight axis": (CONVOLUTION.with_weight(axis=1), "scales along axis 1", "float"),
    "gemm's weight axis": (GEMM.with_weight(axis=1), "scales along axis 1", "float"),
    "matmul's weight axis": (replace(MATMUL, is_transposed=False), "scales along axis 0", "float"),
    "only the weight": (replace(CONVOLUTION, activation=None), "input does not come from", "float"),
    "only the input": (replace(CONVOLUTION, weight=None), "weight does not come from", "float"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_the_check_refuses_does_not_become_the_same_int8(name: str) -> None:
    graph, message, made = BROKEN[name]
    model = graph.model()
    with pytest.raises(ExportError, match=message):
        require_tensorrt(model)
    assert rtx_makes(model) == made


def test_every_problem_names_its_node_and_all_are_told_at_once() -> None:
    graph = CONVOLUTION.with_activation(zero_point=np.int8(3), scale=np.full(1, 0.02, np.float32)).with_weight(axis=1)
    found = messages(replace(graph, bias="int32").model()).splitlines()
    assert len(found) == 6
    for node in ("activation.QuantizeLinear", "activation.DequantizeLinear", "bias.DequantizeLinear", "'layer'"):
        assert any(node in message for message in found), node


@pytest.mark.parametrize("bad", [0.0, -0.01, np.nan, np.inf])
def test_a_scale_is_a_positive_number(bad: float) -> None:
    scale = np.full(CHANNELS, 0.01, np.float32)
    scale[3] = bad
    assert "not a positive number" in messages(CONVOLUTION.with_weight(scale=scale).model())


def test_a_computed_scale_is_refused() -> None:
    model = CONVOLUTION.model()
    doubled = helper.make_node("Add", ["activation.scale", "activation.scale"], ["computed"], name="doubling")
    model.graph.node.insert(0, doubled)
    for node in model.graph.node[1:3]:
        node.input[1] = "computed"
    assert "scale that the network computes" in messages(model)


@pytest.mark.parametrize("dtype", [TensorProto.INT4, TensorProto.FLOAT8E4M3FN])
def test_other_types_than_int8_are_refused(dtype: int) -> None:
    model = CONVOLUTION.model()
    for tensor in model.graph.initializer:
        if tensor.name == "activation.zero":
            tensor.CopyFrom(helper.make_tensor(tensor.name, dtype, [], [0]))
    assert f"has {TensorProto.DataType.Name(dtype).lower()}" in messages(model)


def test_a_quantize_without_a_zero_point_is_uint8_by_the_standard() -> None:
    model = CONVOLUTION.model()
    for node in model.graph.node[:2]:
        del node.input[2]
    assert messages(model).count("has uint8") == 2


@pytest.mark.parametrize(
    "kind", ["QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"]
)
def test_operators_that_compute_with_integers_are_refused(kind: str) -> None:
    model = CONVOLUTION.model()
    model.graph.node.append(helper.make_node(kind, ["input"], ["more"], name="other"))
    assert messages(model) == f"{kind} 'other': TensorRT has no such operator"


def test_operators_of_another_runtime_are_refused() -> None:
    model = CONVOLUTION.model()
    model.graph.node[0].domain = "com.microsoft"
    assert "TensorRT has no such operator" in messages(model)


def test_a_constant_node_is_as_good_as_an_initializer() -> None:
    model = CONVOLUTION.model()
    for index, tensor in enumerate(list(model.graph.initializer)):
        model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], name=f"c{index}", value=tensor))
    del model.graph.initializer[:]
    assert messages(model) == ""
    assert len(quantized_layers(model)) == 1


def test_a_layer_that_the_engine_does_not_name_is_unknown_not_float() -> None:
    model = CONVOLUTION.model()
    found = read_layers(b"a plan in a format of tomorrow", quantized_layers(model))
    assert (found.int8, found.in_float, [layer.node for layer in found.unknown]) == ((), (), ["layer"])


def test_a_transposed_convolution_is_a_layer_with_its_outputs_on_the_second_axis() -> None:
    def model(axis: int) -> onnx.ModelProto:
        weight = numpy_helper.from_array(np.ones((4, 6, 2, 2), np.int8), "up.weight")
        scale = np.full(weight.dims[axis], 0.01, np.float32)
        constants = [numpy_helper.from_array(scale, "s"), numpy_helper.from_array(np.zeros(len(scale), np.int8), "z")]
        nodes = [
            helper.make_node("DequantizeLinear", ["up.weight", "s", "z"], ["w"], axis=axis),
            helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "one", "zero"], ["d"]),
            helper.make_node("ConvTranspose", ["d", "w"], ["y"], name="up", strides=[2, 2]),
        ]
        constants += [numpy_helper.from_array(np.float32(0.1), "one"), numpy_helper.from_array(np.int8(0), "zero")]
        given, returned = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy")
        return helper.make_model(helper.make_graph(nodes, "g", [given], [returned], [weight, *constants]))

    assert [each.module for each in quantized_layers(model(1))] == ["up"]
    assert not find_problems(model(1))
    (problem,) = find_problems(model(0))
    assert "unless they lie along axis 1" in problem.message


# ---- TensorRT's own operators --------------------------------------------------------------------------------------

TOLD = {
    "score_threshold": 0.05,
    "iou_threshold": 0.5,
    "max_output_boxes": 20,
    "background_class": -1,
    "score_activation": 0,
    "box_coding": 0,
}


@pytest.mark.parametrize(
    ("kind", "inputs", "change", "message"),
    [
        ("EfficientNMS_TRT", 2, {}, None),
        ("EfficientNMS_TRT", 3, {"background_class": 0}, None),
        ("EfficientNMS_TRT", 1, {}, "has 1 inputs and 4 outputs; it takes boxes, scores"),
        ("EfficientNMS_TRT", 2, {"max_output_boxes": None}, "is not told its max_output_boxes"),
        ("EfficientNMS_TRT", 2, {"iou_threshold": 0.0}, "has iou_threshold = 0.0, which the plugin does not take"),
        ("EfficientNMS_TRT", 2, {"score_threshold": 1}, "has score_threshold = 1, which the plugin does not take"),
        ("EfficientNMS_TRT", 2, {"box_coding": 2}, "has box_coding = 2, which the plugin does not take"),
        ("OtherNMS_TRT", 2, {}, "TensorRT has no such operator"),
    ],
)
def test_the_plugin_is_known_by_its_contract_and_no_other_operator(kind, inputs, change, message):
    """A parser of TensorRT leaves what it is not told at the default of the plugin, with no more than a warning."""
    options = {name: value for name, value in (TOLD | change).items() if value is not None}
    node = helper.make_node(kind, ["b", "s", "a"][:inputs], [*"nbsc"], name="nms", domain="trt.plugins", **options)
    problems = find_problems(helper.make_model(helper.make_graph([node], "g", [], [])))
    assert len(problems) == (message is not None)
    assert all(problem.message.startswith(f"{kind} 'nms'") and message in problem.message for problem in problems)
