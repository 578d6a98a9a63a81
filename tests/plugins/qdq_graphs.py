"""Small graphs of QuantizeLinear and DequantizeLinear, and what they compute in ONNX Runtime where nothing is fused."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 20


@dataclass
class Chain:
    """Nodes one after another, from `input`, float32 (n, channels, height, width), to `output`."""

    channels: int = 4
    seed: int = 0
    value: str = "input"
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def constant(self, array: NDArray[np.generic]) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def add(self, kind: str, *inputs: str, **attributes: object) -> Chain:
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.value, *inputs], [name], name=name, **attributes))
        self.value = name
        return self

    def at(self, value: str) -> Chain:
        self.value = value
        return self

    def quantize(self, scale: float, zero_point: int, dtype: type = np.int8) -> Chain:
        return self.add("QuantizeLinear", *self._parameters(scale, zero_point, dtype))

    def dequantize(self, scale: float, zero_point: int, dtype: type = np.int8) -> Chain:
        return self.add("DequantizeLinear", *self._parameters(scale, zero_point, dtype))

    def round(self, scale: float, zero_point: int, dtype: type = np.int8) -> Chain:
        return self.quantize(scale, zero_point, dtype).dequantize(scale, zero_point, dtype)

    def clip(self, low: float | None, high: float | None) -> Chain:
        given = ["" if bound is None else self.constant(np.float32(bound)) for bound in (low, high)]
        return self.add("Clip", *given)

    def _parameters(self, scale: float, zero_point: int, dtype: type) -> tuple[str, str]:
        return self.constant(np.float32(scale)), self.constant(dtype(zero_point))

    def convolution(self, outputs: int, kernel: int = 1, group: int = 1, bias: str = "") -> Chain:
        """With int8 weights, a scale for each output."""
        random = np.random.default_rng(self.seed + len(self.nodes))
        shape = (outputs, self.channels // group, kernel, kernel)
        integers = self.constant(random.integers(-127, 128, shape, dtype=np.int8))
        scale = self.constant(random.uniform(0.001, 0.02, outputs).astype(np.float32))
        zero = self.constant(np.zeros(outputs, np.int8))
        weights = f"weights{len(self.nodes)}"
        self.nodes.append(helper.make_node("DequantizeLinear", [integers, scale, zero], [weights], weights, axis=0))
        bias = bias or self.constant(random.standard_normal(outputs).astype(np.float32))
        self.channels = outputs
        return self.add("Conv", weights, bias, group=group, pads=[kernel // 2] * 4)

    def proto(self, channels: int = 4) -> onnx.ModelProto:
        last = next(node for node in self.nodes if node.output[0] == self.value)
        last.output[0] = "output"
        given = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", channels, "h", "w"])
        returned = helper.make_tensor_value_info("output", TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "chain", [given], [returned], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        return onnx.shape_inference.infer_shapes(model)

    def model(self, channels: int = 4) -> onnx_ir.Model:
        return onnx_ir.from_proto(self.proto(channels))


def images(channels: int = 4, count: int = 2, edge: int = 6, seed: int = 0, spread: float = 3.0) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    return (random.standard_normal((count, channels, edge, edge)) * spread).astype(np.float32)


def run(
    model: onnx_ir.Model | onnx.ModelProto, batch: NDArray[np.generic], *, fuse: bool = False
) -> NDArray[np.generic]:
    """The output, every kernel as the file names it unless `fuse`."""
    proto = onnx_ir.to_proto(model) if isinstance(model, onnx_ir.Model) else model
    options = onnxruntime.SessionOptions()
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if fuse else level.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: batch})[0]


def kinds(model: onnx_ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]
