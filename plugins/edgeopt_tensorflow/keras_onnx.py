"""Writes `.onnx` files of TensorFlow models, through tf2onnx; the same model gives the same bytes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import onnx

from edgeopt.export.predictor import input_of, quiet
from edgeopt.files import write_aside
from edgeopt.plugins import ExportContext, ExportError, ExportResult, ModelState, Problem, TensorInfo, first_line
from edgeopt_onnx.operators import WEIGHTED
from edgeopt_onnx.session import open_session
from edgeopt_tensorflow.model import INPUT_NAME, OUTPUT_NAME, Answers
from edgeopt_tensorflow.runtime import tf

CARD_KEY = "edgeopt_card"
"""Key of the card's JSON text in the file's `metadata_props`."""


def write_onnx(model: Answers, state: ModelState, opset: int, context: ExportContext) -> ExportResult:
    """Writes the state's model to `context.path`: float32, NCHW, any batch that the model takes.

    Raises `ExportError` where tf2onnx has no translation, or ONNX Runtime cannot open what it made.
    """
    batch: int | str = model.fixed_batch or "batch"
    given = input_of(state, batch, INPUT_NAME)
    returned = TensorInfo(OUTPUT_NAME, "float32", (batch, len(state.classes)), "NC")
    proto = _ordered(_converted(model, state.preprocessing.shape, opset), batch)
    entry = proto.metadata_props.add()
    entry.key, entry.value = CARD_KEY, context.card.with_tensors(given, (returned,)).to_json()
    onnx.checker.check_model(proto, full_check=True)
    content = proto.SerializeToString(deterministic=True)
    _require_runtime(content)
    write_aside(context.path, content)
    counts = Counter(node.op_type for node in proto.graph.node)
    facts = {"opset": opset, "nodes": len(proto.graph.node), "layers": sum(counts[kind] for kind in WEIGHTED)}
    return ExportResult(given, (returned,), facts=facts)


def _converted(model: Answers, shape: tuple[int, int, int], opset: int) -> onnx.ModelProto:
    import tf2onnx

    spec = tf.TensorSpec([model.fixed_batch, *shape], tf.float32, name=INPUT_NAME)

    def serve(input: Any) -> dict[str, Any]:
        return {OUTPUT_NAME: model.answer(input)}

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
    return converted


def _ordered(model: onnx.ModelProto, batch: int | str) -> onnx.ModelProto:
    """The model with nodes in the order in which its output needs them, and constants named after their first reader.

    tf2onnx numbers the nodes that it adds, and keeps one of several equal constants, in the order of Python's sets of
    strings. That order is another in each process.
    """
    graph = model.graph
    producers = {output: node for node in graph.node for output in node.output}
    (returned,) = graph.output
    nodes = _needed(producers, returned.name)
    constants = {each.name: each for each in graph.initializer}
    names = {each.name: each.name for each in (*graph.input, *graph.output)}
    kept = []
    for number, node in enumerate(nodes):
        node.name = f"{node.op_type.lower()}_{number}"
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
    ordered = onnx.helper.make_graph(nodes, "model", list(graph.input), list(graph.output), kept)
    for info in (*ordered.input, *ordered.output):
        dimension = info.type.tensor_type.shape.dim[0]
        if isinstance(batch, str):
            dimension.dim_param = batch
    imports = [each for each in model.opset_import if not each.domain]
    return onnx.helper.make_model(ordered, opset_imports=imports, ir_version=model.ir_version, producer_name="tf2onnx")


def _needed(producers: dict[str, onnx.NodeProto], output: str) -> list[onnx.NodeProto]:
    """The nodes behind a value, each after those it reads; without recursion, as networks are deep."""
    order: list[onnx.NodeProto] = []
    seen: set[int] = set()
    stack = [(producers[output], False)]
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
