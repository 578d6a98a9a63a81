"""Convert a float file to smaller numbers: float16, int8 weights alone, or int8 layers that scale inputs on the run."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir

from edgeopt.plugins import NothingChangedError
from edgeopt_onnx.operators import WEIGHTED
from edgeopt_onnx.quantization import constant, initializer, nodes, scaled

_NORMALIZES = ("Cast", "Mul", "Add", "Sub", "Div", "Transpose")
_LARGEST = 127  # of symmetric int8: -128 has no counterpart


def quantize_weights(graph: onnx_ir.Graph, *, folded_at_load: bool) -> int:
    """Store the weights of each layer as int8, symmetric, a scale for each output channel; returns how many layers.

    The arithmetic stays float32. `folded_at_load` writes the multiplication by the scales so that ONNX Runtime does it
    only once, see `quantization.scaled`; otherwise DequantizeLinear stands in the file.

    Raises `NothingChangedError` when no layer has constant weights.
    """
    count = 0
    for layer in nodes(graph, *WEIGHTED):
        weight = layer.inputs[1]
        values = constant(weight)
        if weight is None or values is None or values.dtype != np.float32 or values.ndim < 2:
            continue
        axis = _output_axis(layer, values.ndim)
        others = tuple(each for each in range(values.ndim) if each != axis)
        largest = np.abs(values).max(axis=others)
        scale = np.where(largest > 0, largest / _LARGEST, 1).astype(np.float32)
        shape = [-1 if each == axis else 1 for each in range(values.ndim)]
        integers = np.rint(values / scale.reshape(shape)).clip(-_LARGEST, _LARGEST).astype(np.int8)
        stored = initializer(graph, f"{weight.name}_int8", integers)
        replacement = scaled(graph, layer, stored, scale, axis, folded_at_load=folded_at_load)
        layer.replace_input_with(1, replacement)
        if not weight.uses():
            del graph.initializers[str(weight.name)]
        count += 1
    if not count:
        raise NothingChangedError(
            "no layer of this model has constant weights to store as int8", hint='use precision = "program"'
        )
    return count


def _output_axis(layer: onnx_ir.Node, rank: int) -> int:
    """The axis of a layer's weights that counts its outputs."""
    if layer.op_type == "Conv":
        return 0
    if layer.op_type == "Gemm":
        return 0 if layer.attributes.get_int("transB", 0) else 1
    return 1 if layer.op_type == "ConvTranspose" else rank - 1


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store and compute in float16; input and output stay float32.

    Operators without a float16 kernel get casts around them. ONNX Runtime has few such kernels for processors: there it
    casts the weights back when it opens the file, so that the file is half as large and no faster. Accelerators compute
    in float16. Pixels are normalized in float32: float16 does not hold the small difference of two large numbers.

    Raises `NothingChangedError` when the model has no float32 constant.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    if not any(each.data_type == onnx.TensorProto.FLOAT for each in model.graph.initializer):
        raise NothingChangedError(
            "this model has no float32 weights to store as float16", hint='use precision = "program"'
        )
    kept = _normalization(model.graph)
    converted = onnx_ir.from_proto(convert_float_to_float16(model, keep_io_types=True, node_block_list=kept))
    converted.graph.sort()  # casts are appended behind the nodes that read them
    return onnx_ir.to_proto(converted)


def _normalization(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes with which a file that takes pixels begins: a chain of arithmetic with constants."""
    given = graph.input[0]
    if given.type.tensor_type.elem_type != onnx.TensorProto.UINT8:
        return []
    constants = {each.name for each in graph.initializer}
    constants |= {node.output[0] for node in graph.node if node.op_type == "Constant"}
    names, value = [], given.name
    while len(readers := [node for node in graph.node if value in node.input]) == 1:
        (node,) = readers
        if node.op_type not in _NORMALIZES or not set(node.input) <= {value, *constants}:
            break
        names.append(node.name)
        value = node.output[0]
    return names


def quantize_on_the_run(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let fully connected layers compute in int8: weights have a scale for each output, activations one for each call.

    Convolutions stay float32: ONNX Runtime's ConvInteger takes 1.6 times as long as a float convolution in ResNet-18,
    and 4.5 times as long in MobileNetV3-small (measured with version 1.31 on x86).

    Raises `NothingChangedError` when the model has no fully connected layer with constant weights.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        quantize_dynamic(model, path, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8)
        converted = onnx.load(path)
    if not any(node.op_type == "MatMulInteger" for node in converted.graph.node):
        raise NothingChangedError(
            "this model has no fully connected layer to compute in int8",
            hint='convolutions need a pass that calibrates, such as `ptq`, or precision = "weight-only-int8"',
        )
    return converted
