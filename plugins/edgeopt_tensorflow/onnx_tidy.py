"""Brings ONNX files of any age and tool into one shape, before anything else looks at them.

What is changed computes the same: constants that older files list among their inputs or make while they run become
plain constants, sizes written as -1 are open, operator sets below 11 are lifted, an output of one value a class with
two empty axes more is flattened.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import onnx
from onnx import version_converter

from edgeopt.plugins import CheckpointError, first_line

LOWEST_OPSET = 7
"""The lowest operator set that is read: in the ones before, operators broadcast by rules of their own."""
LIFTED_OPSET = 11
"""The lowest operator set of a tidy file: from here on paddings are inputs, which rewrites of graphs count on."""
_IR_VERSION = 8  # from 4 on, constants are not inputs
_LARGEST_CONSTANT_BYTES = 2**31
_TAKEN_BY_ALL = re.compile(r"[^A-Za-z0-9_./-]")


def plain(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with its constants as constants and its sizes as numbers or open; any operator set."""
    tidy = onnx.ModelProto()
    tidy.CopyFrom(model)
    graph = tidy.graph
    _fill_constants(graph)
    constants = {each.name for each in graph.initializer}
    inputs = [each for each in graph.input if each.name not in constants]
    del graph.input[:]
    graph.input.extend(inputs)
    del graph.value_info[:]  # runtimes infer them again
    for value in (*graph.input, *graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.HasField("dim_value") and dimension.dim_value <= 0:
                dimension.ClearField("dim_value")
    tidy.ir_version = max(tidy.ir_version, _IR_VERSION)
    return tidy


def lifted(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The model in an operator set of 11 or later.

    Raises `CheckpointError` for a file older than opset 7, and one that onnx's version converter cannot lift.
    """
    opset = opset_of(model)
    if opset >= LIFTED_OPSET:
        return model
    hint = f"export it again, with opset {LIFTED_OPSET} or later"
    if opset < LOWEST_OPSET:
        raise CheckpointError(f"{name}: is written in opset {opset}; {LOWEST_OPSET} and later are read", hint=hint)
    try:
        newer: onnx.ModelProto = version_converter.convert_version(model, LIFTED_OPSET)
    except Exception as error:  # the converter is C++ and raises many types
        raise CheckpointError(
            f"{name}: is written in opset {opset} and cannot be lifted to {LIFTED_OPSET}: {first_line(error)}",
            hint=hint,
        ) from error
    newer.ir_version = max(newer.ir_version, _IR_VERSION)
    return newer


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operator set that a model is written in."""
    return next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 1)


def flatten_output(model: onnx.ModelProto, classes: int) -> None:
    """Makes the only output, of one value a class with empty axes beside it, (n, classes); works in place."""
    (returned,) = model.graph.output
    name = f"{returned.name}_flattened"
    model.graph.node.append(onnx.helper.make_node("Flatten", [returned.name], [name], name=name, axis=1))
    batch = onnx.TensorShapeProto.Dimension()
    if returned.type.tensor_type.shape.dim:
        batch.CopyFrom(returned.type.tensor_type.shape.dim[0])
    flat = onnx.helper.make_tensor_value_info(name, returned.type.tensor_type.elem_type, [None, classes])
    flat.type.tensor_type.shape.dim[0].CopyFrom(batch)
    del model.graph.output[:]
    model.graph.output.append(flat)


def keep_output(model: onnx.ModelProto, name: str) -> None:
    """Drops all other outputs, and the nodes and constants that lead to none but them; works in place."""
    graph = model.graph
    kept = [each for each in graph.output if each.name == name]
    del graph.output[:]
    graph.output.extend(kept)
    wanted = {name}
    nodes = []
    for node in reversed(graph.node):  # a node stands behind those that it reads
        if wanted.intersection(node.output):
            nodes.append(node)
            inside = [each.g for each in node.attribute if each.type == onnx.AttributeProto.GRAPH]
            read = (other for graph in inside for nested in graphs_of(graph) for other in nested.node)
            wanted.update(node.input, *(other.input for other in read))
            wanted.update(each.name for graph in inside for each in graph.output)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(nodes)]
    del graph.node[:]
    graph.node.extend(nodes)
    constants = [each for each in graph.initializer if each.name in wanted]
    del graph.initializer[:]
    graph.initializer.extend(constants)


def fix_batch(model: onnx.ModelProto, batch: int) -> None:
    """Writes the batch into the shapes of input and output; works in place."""
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_value = batch


def renamed(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose nodes and values have names that every converter takes: `Softmax@0` and `my net: Relu` are not."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graphs = list(graphs_of(copy.graph))
    values = _Names(
        name
        for graph in graphs
        for name in (
            *(each.name for each in (*graph.input, *graph.initializer)),
            *(output for node in graph.node for output in node.output),
        )
    )
    nodes = _Names(node.name for graph in graphs for node in graph.node)
    for graph in graphs:
        for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            value.name = values.of(value.name)
        for node in graph.node:
            node.name = nodes.of(node.name)
            node.input[:] = [values.of(name) for name in node.input]
            node.output[:] = [values.of(name) for name in node.output]
    return copy


class _Names:
    """New names for old ones: the same where it is taken by all, and never one name for two."""

    def __init__(self, names: Iterable[str]) -> None:
        """Names that are taken by all keep themselves, so that no other becomes one of them."""
        self._names = {name: name for name in names if not _TAKEN_BY_ALL.search(name)}
        self._used = set(self._names)

    def of(self, name: str) -> str:
        if not name or name in self._names:
            return self._names.get(name, name)
        wanted = _TAKEN_BY_ALL.sub("_", name)
        new, number = wanted, 1
        while new in self._used:
            number += 1
            new = f"{wanted}_{number}"
        self._names[name] = new
        self._used.add(new)
        return new


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and those of its branches and loops."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs_of(attribute.g)
            for inner in attribute.graphs:
                yield from graphs_of(inner)


def _fill_constants(graph: onnx.GraphProto) -> None:
    """Replaces Constant and ConstantOfShape nodes of known shapes by constants, where converters look for weights."""
    known = {each.name: each for each in graph.initializer}
    kept = []
    for node in graph.node:
        value = _CONSTANTS[node.op_type](node, known) if node.op_type in _CONSTANTS and not node.domain else None
        if value is None:
            kept.append(node)
            continue
        tensor = onnx.TensorProto()
        tensor.CopyFrom(value)
        tensor.name = node.output[0]
        graph.initializer.append(tensor)
        known[tensor.name] = tensor
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(nodes)


def _constant(node: onnx.NodeProto, known: dict[str, onnx.TensorProto]) -> onnx.TensorProto | None:  # noqa: ARG001
    return next((each.t for each in node.attribute if each.name == "value"), None)


def _constant_of_shape(node: onnx.NodeProto, known: dict[str, onnx.TensorProto]) -> onnx.TensorProto | None:
    shape = known.get(node.input[0])
    if shape is None:
        return None
    given = next((onnx.numpy_helper.to_array(each.t) for each in node.attribute if each.name == "value"), None)
    value = np.zeros(1, np.float32) if given is None else given
    sizes = [int(size) for size in onnx.numpy_helper.to_array(shape)]
    if any(size < 0 for size in sizes) or np.prod(sizes, dtype=float) * value.itemsize > _LARGEST_CONSTANT_BYTES:
        return None
    return onnx.numpy_helper.from_array(np.full(sizes, value.reshape(-1)[0], value.dtype))


_CONSTANTS: dict[str, Callable[[onnx.NodeProto, dict[str, onnx.TensorProto]], onnx.TensorProto | None]] = {
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
}
