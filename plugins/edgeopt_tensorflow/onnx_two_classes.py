"""An ONNX model with one output for two classes, as behind a sigmoid, becomes one with their two logits."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from numpy.typing import DTypeLike

_SHAPE_ONLY = ("Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")
_SMALLEST_PROBABILITY = 1e-7


def gives_one_value(shape: tuple[int, ...]) -> bool:
    """Whether an answer to images, of this shape, is one value an image."""
    return len(shape) > 0 and all(size == 1 for size in shape[1:])


def without_sigmoid(model: onnx.ModelProto) -> bool:
    """Takes a sigmoid off the only output, in place; False where the output comes from something else.

    Nodes that change the shape alone may stand behind it. Its place is taken by an Identity.
    """
    graph = model.graph
    makers = {output: node for node in graph.node for output in node.output}
    readers = Counter(name for node in graph.node for name in node.input)
    name = graph.output[0].name
    while (node := makers.get(name)) is not None and readers[name] <= 1:  # more readers would see the change as well
        if node.op_type == "Sigmoid":
            node.op_type = "Identity"
            return True
        if node.op_type not in _SHAPE_ONLY:
            return False
        name = node.input[0]
    return False


def give_two_logits(model: onnx.ModelProto, *, probability: bool) -> None:
    """Lets a model whose output is one value an image give the logits of two classes, 0 and that value; in place.

    A probability is turned into its log-odds first.
    """
    graph = model.graph
    (returned,) = graph.output
    kind = returned.type.tensor_type.elem_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)

    def constant(name: str, value: float | list[int], of: DTypeLike = dtype) -> str:
        full = f"{returned.name}_two_classes_{name}"
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, of), full))
        return full

    def node(operator: str, inputs: list[str], what: str, **attributes: int) -> str:
        full = f"{returned.name}_two_classes_{what}"
        graph.node.append(onnx.helper.make_node(operator, inputs, [full], name=full, **attributes))
        return full

    value = node("Reshape", [returned.name, constant("shape", [-1, 1], np.int64)], "column")
    if probability:
        smallest = constant("smallest", _SMALLEST_PROBABILITY)
        largest = constant("largest", 1 - _SMALLEST_PROBABILITY)
        inside = node("Clip", [value, smallest, largest], "inside")
        other = node("Sub", [constant("one", 1), inside], "other")
        value = node("Sub", [node("Log", [inside], "log"), node("Log", [other], "log_other")], "log_odds")
    logits = node("Concat", [node("Mul", [value, constant("zero", 0)], "first"), value], "logits", axis=1)
    new = onnx.helper.make_tensor_value_info(logits, kind, [None, 2])
    if returned.type.tensor_type.shape.dim:
        new.type.tensor_type.shape.dim[0].CopyFrom(returned.type.tensor_type.shape.dim[0])
    del graph.output[:]
    graph.output.append(new)


def is_linear(model: onnx.ModelProto) -> bool:
    """Whether the only output is that of a layer without an activation, which gives logits whatever their values."""
    makers = {output: node for node in model.graph.node for output in node.output}
    node = makers.get(model.graph.output[0].name)
    while node is not None and node.op_type in _SHAPE_ONLY:
        node = makers.get(node.input[0])
    return node is not None and node.op_type in ("Add", "Conv", "Gemm", "MatMul")
