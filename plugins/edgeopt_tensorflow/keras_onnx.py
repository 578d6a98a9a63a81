"""Writes `.onnx` files of TensorFlow models, through tf2onnx; the same model gives the same bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import onnx

from edgeopt.export.predictor import input_of, layout_of, quiet
from edgeopt.files import write_aside
from edgeopt.plugins import ExportContext, ExportError, ExportResult, ModelState, Problem, TensorInfo, first_line
from edgeopt_onnx.operators import WEIGHTED
from edgeopt_onnx.session import open_session
from edgeopt_tensorflow.model import INPUT_NAME, Answers, keys_of
from edgeopt_tensorflow.runtime import tf

CARD_KEY = "edgeopt_card"
"""Key of the card's JSON text in the file's `metadata_props`."""


def write_onnx(model: Answers, state: ModelState, opset: int, context: ExportContext) -> ExportResult:
    """Writes the state's model to `context.path`: float32, NCHW, any batch that the model takes.

    Raises `ExportError` where tf2onnx has no translation, or ONNX Runtime cannot open what it made.
    """
    batch: int | str = model.fixed_batch or "batch"
    given = input_of(state, batch, INPUT_NAME)
    proto = _ordered(_converted(model, state, opset), batch, state.output_names)
    returned = tuple(_info(each, batch) for each in proto.graph.output)
    entry = proto.metadata_props.add()
    entry.key, entry.value = CARD_KEY, context.card.with_tensors(given, returned).to_json()
    onnx.checker.check_model(proto, full_check=True)
    content = proto.SerializeToString(deterministic=True)
    _require_runtime(content)
    write_aside(context.path, content)
    counts = Counter(node.op_type for node in proto.graph.node)
    facts = {"opset": opset, "nodes": len(proto.graph.node), "layers": sum(counts[kind] for kind in WEIGHTED)}
    return ExportResult(given, returned, facts=facts)


def _info(returned: onnx.ValueInfoProto, batch: int | str) -> TensorInfo:
    kind = returned.type.tensor_type
    shape = (batch, *(each.dim_value for each in kind.shape.dim[1:]))
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
    return TensorInfo(returned.name, dtype, shape, layout_of(len(shape)))


def _converted(model: Answers, state: ModelState, opset: int) -> onnx.ModelProto:
    """The model with its outputs in the state's order and by its names."""
    import tf2onnx

    keys = keys_of(len(state.output_names))
    spec = tf.TensorSpec([model.fixed_batch, *state.preprocessing.shape], tf.float32, name=INPUT_NAME)

    def serve(input: Any) -> dict[str, Any]:
        return dict(zip(keys, model.answers(input), strict=True))

    try:
        with quiet():
            proto, _ = tf2onnx.convert.from_function(
                tf.function(serve, input_signature=[spec]),
                input_signature=[spec],
                opset=opset,
                inputs_as_nchw=[INPUT_NAME],
            )
    except Exception as error:  # tf2onnx raises many types
        raise ExportError(
            Problem(f"tf2onnx cannot convert the model: {first_line(error)}", "choose another opset")
        ) from error
    converted: onnx.ModelProto = proto
    returned = {each.name: each for each in converted.graph.output}
    del converted.graph.output[:]
    converted.graph.output.extend(returned[key] for key in keys)
    return converted


def _ordered(model: onnx.ModelProto, batch: int | str, output_names: Sequence[str]) -> onnx.ModelProto:
    """The model with its outputs by these names, nodes in the order in which they need them, and constants named after
    their first reader.

    tf2onnx numbers the nodes that it adds, and keeps one of several equal constants, in the order of Python's sets of
    strings. That order is another in each process.
    """
    graph = model.graph
    producers = {output: node for node in graph.node for output in node.output}
    nodes = _needed(producers, [each.name for each in graph.output])
    constants = {each.name: each for each in graph.initializer}
    names = {each.name: each.name for each in graph.input}
    names |= {each.name: name for each, name in zip(graph.output, output_names, strict=True)}
    taken = set(names.values())
    kept = []
    for number, node in enumerate(nodes):
        node.name = f"{node.op_type.lower()}_{number}"
        if node.name in taken:  # an output may be called as its layer in Keras, and that like a node here
            node.name = f"node_{node.name}"
        for place, name in enumerate(node.input):
            if name in constants and name not in names:
                names[name] = f"{node.name}.{place}"
                kept.append(constants[name])
            node.input[place] = names.get(name, name)
        for place, name in enumerate(node.output):
            names.setdefault(name, f"{node.name}_{place}" if place else node.name)
            node.output[place] = names[name]
    for constant in kept:
        constant.name = names[constant.name]
    for each in graph.output:
        each.name = names[each.name]
    ordered = onnx.helper.make_graph(nodes, "model", list(graph.input), list(graph.output), kept)
    for info in (*ordered.input, *ordered.output):
        dimension = info.type.tensor_type.shape.dim[0]
        if isinstance(batch, str):
            dimension.dim_param = batch
    imports = [each for each in model.opset_import if not each.domain]
    return onnx.helper.make_model(ordered, opset_imports=imports, ir_version=model.ir_version, producer_name="tf2onnx")


def _needed(producers: dict[str, onnx.NodeProto], outputs: Sequence[str]) -> list[onnx.NodeProto]:
    """The nodes behind values, each after those it reads; without recursion, as networks are deep."""
    order: list[onnx.NodeProto] = []
    seen: set[int] = set()
    stack = [(producers[output], False) for output in reversed(outputs)]
    while stack:
        node, is_ready = stack.pop()
        if is_ready:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack += [(producers[name], False) for name in reversed(node.input) if name in producers]
    return order


def _require_runtime(content: bytes) -> None:
    try:
        open_session(content)
    except Exception as error:  # onnxruntime's errors share no base class below Exception
        raise ExportError(f"ONNX Runtime cannot open the converted model: {first_line(error)}") from error
