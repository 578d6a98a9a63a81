"""Write an exported program as an ONNX file; a quantized one keeps its QuantizeLinear and DequantizeLinear nodes.

One way: fold the quantized weights, convert, clean (metadata, dead nodes), add the card, check, open once in ONNX Runtime, write.
"""

import copy
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from traceback import walk_tb

import onnx
import onnx_ir
import torch
import torch.ao.quantization.fx._decomposed
from onnx_ir.passes import common as onnx_passes
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument
from torch.fx import Node
from torch.fx.node import map_arg

from edgeopt.exporting import OperatorPlace, quiet, unsupported
from edgeopt.program import example_of, require_same_function
from edgeopt.store import write_aside

INPUT_NAME = "input"
OUTPUT_NAME = "logits"
CARD_KEY = "edgeopt_card"
"""Key of the card's JSON text in the file's `metadata_props`."""

_QUANTIZE = (
    torch.ops.quantized_decomposed.quantize_per_tensor.default,
    torch.ops.quantized_decomposed.quantize_per_channel.default,
)
_WEIGHTED = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class OnnxReport:
    """What was written, and how much of it is quantized."""

    path: Path
    size_bytes: int
    opset: int
    dynamic_batch: bool
    nodes: int
    quantize_nodes: int
    dequantize_nodes: int
    weighted_layers: int
    """Conv, Gemm and MatMul nodes."""
    quantized_layers: int
    """Those of them whose weights and inputs come from DequantizeLinear."""


def export_onnx(
    program: ExportedProgram, path: Path, *, card_json: str, opset: int = 20, dynamic_batch: bool = True
) -> OnnxReport:
    """Convert a float or an unfolded quantized program and write it to `path`; the program stays as it is.

    The file's input is `input`, float32 [N, C, H, W], and its output `logits`, float32 [N, classes].

    Args:
        program: one float32 input and one float32 output whose first dimension, the batch, is dynamic.
        path: the `.onnx` file, written aside and renamed into place.
        card_json: text kept in the file's metadata under `CARD_KEY`.
        opset: version of the ONNX operator set, 18 or later. From 21 on, ONNX Runtime 1.31 fails on some int8 attention
            layers: it copies their QuantizeLinear nodes without the zero point.
        dynamic_batch: whether the file takes any batch, or exactly one picture.

    Raises:
        ExportError: ONNX has no translation of an operator, or ONNX Runtime no kernel for it.
        ValueError: the graph cannot be expressed in this opset.

    """
    with quiet():
        unfolded = _copied(program) if dynamic_batch else _with_batch_of_one(program)
        before = unfolded.module(check_guards=False)
        program = fold_weights(unfolded)
        require_same_function(
            before, program.module(check_guards=False), example_of(program), "folding weights for ONNX"
        )
        model = _convert(program, opset)
        places = {
            node.name: _module_path(node.metadata_props.get("namespace", "")) for node in model.graph if node.name
        }
        proto = _cleaned(model, card_json)
    onnx.checker.check_model(proto, full_check=True)
    # Protocol buffers promise the same bytes for the same message only when asked to.
    content = proto.SerializeToString(deterministic=True)
    _require_runtime(content, places, path)
    counts = Counter(node.op_type for node in proto.graph.node)
    write_aside(path, content)
    return OnnxReport(
        path=path,
        size_bytes=len(content),
        opset=opset,
        dynamic_batch=dynamic_batch,
        nodes=len(proto.graph.node),
        quantize_nodes=counts["QuantizeLinear"],
        dequantize_nodes=counts["DequantizeLinear"],
        weighted_layers=sum(counts[kind] for kind in _WEIGHTED),
        quantized_layers=_quantized_layers(proto.graph),
    )


def fold_weights(program: ExportedProgram) -> ExportedProgram:
    """Replace every quantize node of a constant by the integers it computes; works in place and returns the program.

    Weights become int8 constants, and quantized biases int32 ones: ONNX Runtime has no QuantizeLinear to int32.
    """
    graph, signature = program.graph, program.graph_signature
    constants = _constants(program)
    first_input = next(node for node in graph.nodes if node.name in signature.user_inputs)
    # Nodes that depend on constants alone, each with the placeholder its first operand comes from.
    origins = {node: node for node in graph.nodes if node.name in constants}
    for node in list(graph.nodes):
        if node in origins or not node.all_input_nodes or not all(source in origins for source in node.all_input_nodes):
            continue
        origins[node] = origins[node.all_input_nodes[0]]
        if node.target not in _QUANTIZE:
            continue
        value = _evaluate(node, constants)
        with graph.inserting_before(first_input):
            folded = graph.placeholder(f"b_{node.name}_folded")
        folded.meta["val"] = first_input.meta["val"].fake_mode.from_tensor(value, static_shapes=True)
        node.replace_all_uses_with(folded)
        origin = origins[node].name
        name = f"{signature.inputs_to_parameters.get(origin, origin)}_{node.name}"
        spec = InputSpec(InputKind.BUFFER, TensorArgument(folded.name), name, persistent=True)
        position = next(i for i, one in enumerate(signature.input_specs) if one.kind is InputKind.USER_INPUT)
        signature.input_specs.insert(position, spec)
        program.state_dict[name] = value
    graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program


def _constants(program: ExportedProgram) -> dict[str, torch.Tensor]:
    """Return the tensors of parameters, buffers and lifted constants by the name of their placeholder."""
    tensors = {**program.constants, **program.state_dict}
    kept = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
    return {spec.arg.name: tensors[spec.target] for spec in program.graph_signature.input_specs if spec.kind in kept}


def _evaluate(node: Node, constants: dict[str, torch.Tensor]) -> torch.Tensor:
    if node.op == "placeholder":
        return constants[node.name].detach()
    args, kwargs = map_arg((node.args, node.kwargs), lambda source: _evaluate(source, constants))
    assert callable(node.target)
    value: torch.Tensor = node.target(*args, **kwargs)
    return value


def _copied(program: ExportedProgram) -> ExportedProgram:
    copied = copy.deepcopy(program)
    # Copying a graph renames nodes that are called like a Python builtin (`input`), and the signature knows the old names.
    for node, original in zip(copied.graph.nodes, program.graph.nodes, strict=True):
        node.name = original.name
    return copied


def _with_batch_of_one(program: ExportedProgram) -> ExportedProgram:
    (user_input,) = (node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs)
    value = user_input.meta["val"]
    return torch.export.export(
        program.module(check_guards=False), (torch.zeros(1, *value.shape[1:], dtype=value.dtype),)
    )


def _convert(program: ExportedProgram, opset: int) -> onnx_ir.Model:
    try:
        converted = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            opset_version=opset,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
        )
    except torch.onnx.errors.OnnxExporterError as error:
        if "No ONNX function found" in "".join(map(str, _causes(error))) and (node := _translated_node(error)):
            place = OperatorPlace(str(node.target), _deepest_path(node))
            raise unsupported("ONNX", (place,), "ONNX has no translation of it") from error
        raise
    assert converted is not None  # None is the return of the older exporter
    model = converted.model
    if model.opset_imports[""] != opset:
        raise ValueError(
            f"this model cannot be expressed in ONNX opset {opset}; the lowest that was reached is {model.opset_imports['']}"
        )
    return model


def _cleaned(model: onnx_ir.Model, card_json: str) -> onnx.ModelProto:
    """Drop what only a debugger of the exporter reads, and put the card in."""
    for clean in (
        onnx_passes.RemoveUnusedNodesPass(),
        onnx_passes.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        onnx_passes.RemoveUnusedOpsetsPass(),
        onnx_passes.ClearMetadataAndDocStringPass(),
    ):
        clean(model)
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.metadata_props[CARD_KEY] = card_json
    proto = onnx_ir.to_proto(model)
    # Shapes between nodes carry the exporter's notes as well; runtimes infer them again.
    del proto.graph.value_info[:]
    return proto


def _require_runtime(content: bytes, places: dict[str, str], path: Path) -> None:
    """Raise where ONNX Runtime cannot open the file, naming the node and its place in the model."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class below Exception
        if missing := re.search(r"implementation for (\w+)\(\d+\) node with name '([^']*)'", str(error)):
            place = OperatorPlace(f"onnx.{missing[1]}", places.get(missing[2], ""))
            raise unsupported("ONNX", (place,), "ONNX Runtime has no kernel for it") from error
        raise ValueError(f"ONNX Runtime cannot open what would become {path.name}: {error}") from error


def _quantized_layers(graph: onnx.GraphProto) -> int:
    producer = {output: node for node in graph.node for output in node.output}

    def dequantized(name: str) -> bool:
        node = producer.get(name)
        while node is not None and node.op_type in ("Transpose", "Reshape", "Flatten"):
            node = producer.get(node.input[0])
        return node is not None and node.op_type == "DequantizeLinear"

    return sum(node.op_type in _WEIGHTED and all(map(dequantized, node.input[:2])) for node in graph.node)


def _module_path(namespace: str) -> str:
    """Return the deepest module of the exporter's note `: Net/features: Sequential/features.0: Conv2d/conv: aten.conv2d`."""
    paths = [level.partition(":")[0] for level in namespace.split("/")[:-1]]
    return max(paths, key=len, default="")


def _deepest_path(node: Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    return max((entry[0] for entry in stack.values() if isinstance(entry, tuple)), key=len, default="")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those behind it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _translated_node(error: BaseException) -> Node | None:
    """Return the node that the converter was at, whose place in the model its message leaves out."""
    for cause in _causes(error):
        for frame, _ in walk_tb(cause.__traceback__):
            if isinstance(node := frame.f_locals.get("node"), Node):
                return node
    return None
