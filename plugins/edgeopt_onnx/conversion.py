"""Write an exported program as an ONNX file; a quantized one keeps its QuantizeLinear and DequantizeLinear nodes.

The steps: fold the quantized weights, spell out saturation, convert, rewrite for the target, change the precision where
it is asked for, pack weights of four bits, clean, add the card, write aside, open once in ONNX Runtime, rename.
"""

import copy
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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

from edgeopt.export.predictor import quiet
from edgeopt.export.refusals import OperatorPlace, require_named_outputs, require_one_image, unsupported
from edgeopt.networks.bits import LayerBits, packed_layers, spell_out_saturation
from edgeopt.networks.capture import example_of, require_same_function
from edgeopt.networks.layers import module_path
from edgeopt.plugins import ONLY_LOGITS, ExportError, OnnxTail, UserError, first_line
from edgeopt_onnx.attention import give_heads
from edgeopt_onnx.auto.choice import keep_cheaper_in_float
from edgeopt_onnx.auto.costs import Costs
from edgeopt_onnx.conversion_speed import quick_conversion
from edgeopt_onnx.files import write
from edgeopt_onnx.int4 import store_narrow_weights
from edgeopt_onnx.operators import LAYOUT, WEIGHTED
from edgeopt_onnx.opset import LOWEST_CONVERTED, lowered
from edgeopt_onnx.options import (
    CARD_KEY,
    DEFAULT_OPSET,
    INPUT_NAME,
    LOWEST_INT4_OPSET,
    ExternalData,
    Precision,
    Target,
    no_packed_weights,
    opset_too_low,
)
from edgeopt_onnx.plain_operators import untraced_where_plain
from edgeopt_onnx.precision import quantize_on_the_run, quantize_weights, to_float16
from edgeopt_onnx.rewrites import canonicalize
from edgeopt_onnx.tail import add_tail

_AS_THE_PROGRAM = ("program", "auto")  # the precisions that keep the program's own integers
_QUANTIZE = (
    torch.ops.quantized_decomposed.quantize_per_tensor.default,
    torch.ops.quantized_decomposed.quantize_per_channel.default,
)


@dataclass(frozen=True)
class OnnxReport:
    """What was written, and how much of it is quantized."""

    path: Path
    size_bytes: int
    opset: int
    dynamic_batch: bool
    nodes: int
    int4_layers: int
    """Nodes whose weights are stored in four bits."""
    quantize_nodes: int
    dequantize_nodes: int
    weighted_layers: int
    """Nodes that multiply by weights, such as Conv, Gemm and MatMul."""
    quantized_layers: int
    """Those of them whose weights and inputs come from DequantizeLinear, or that scale their inputs on the run."""
    fused_layers: int
    """Those of them that ONNX Runtime computes in integers on this machine."""
    fused_operators: dict[str, int]
    """Nodes of each integer operator in the graph that ONNX Runtime made of the file, and of those that convert."""
    outside: tuple[OperatorPlace, ...]
    """The quantized layers that ONNX Runtime computes in float."""


def export_onnx(
    program: ExportedProgram,
    path: Path,
    *,
    card_json: str,
    output_names: Sequence[str] = ONLY_LOGITS,
    opset: int | None = None,
    dynamic_batch: bool = True,
    target: Target = "x86",
    precision: Precision = "program",
    costs: Costs | None = None,
    external_data: ExternalData = "auto",
    tail: OnnxTail | None = None,
) -> OnnxReport:
    """Convert a float or an unfolded quantized program and write it to `path`; the program stays as it is.

    The file's input is `input`, of the program's own type and shape, and so are its outputs, called `output_names`,
    unless a tail goes on with these.

    Args:
        program: one input and its outputs, whose first dimension, the batch, is dynamic.
        path: the `.onnx` file, written aside and renamed into place.
        card_json: text kept in the file's metadata under `CARD_KEY`.
        output_names: what the outputs are called, in the program's order.
        opset: version of the ONNX operator set, 17 or later; when left out 20, or 21 where weights take four bits.
        dynamic_batch: whether the file takes any batch, or exactly one image.
        target: whose fuser the quantized graph is written for, see `rewrites`.
        precision: what the file computes in, see `precision` and `auto.choice`.
        costs: what operators cost, by which precision "auto" chooses; no other precision takes any.
        external_data: whether weights stand in a file beside `path`: where they exceed 2 GB, or always.
        tail: last operators of the file behind the program, in float whatever `precision` says.

    Raises:
        ExportError: weights take four bits, and this opset has no such integers; ONNX has no translation of an
            operator, or ONNX Runtime no kernel for it; the target refuses the numerics; the program has several
            inputs.
        NothingChangedError: `precision` asks for a conversion, and there is nothing to convert.
        ValueError: the graph cannot be expressed in this opset.

    """
    require_one_image(program, "ONNX Runtime")
    require_named_outputs(program, output_names)
    packed = packed_layers(program) if precision in _AS_THE_PROGRAM else ()
    if packed and target == "tensorrt":
        raise ExportError(*no_packed_weights(min(each.weights or 0 for each in packed)))
    opset = _opset(opset, packed)
    with quiet():
        unfolded = _copied(program) if dynamic_batch else _with_batch_of_one(program)
        before = unfolded.module(check_guards=False)
        program = fold_weights(unfolded)
        spell_out_saturation(program)
        give_heads(program.graph)
        program.graph_module.recompile()
        require_same_function(
            before, program.module(check_guards=False), example_of(program), "folding weights for ONNX"
        )
        model = _convert(program, max(opset, LOWEST_CONVERTED), output_names)
        places = {
            node.name: _module_path(node.metadata_props.get("namespace", "")) for node in model.graph if node.name
        }
        if precision == "auto":
            assert costs is not None  # whoever asks for "auto" says by what
            keep_cheaper_in_float(model.graph, costs)
        canonicalize(model, target)
        if precision == "weight-only-int8":
            quantize_weights(model.graph, folded_at_load=target != "tensorrt")
        if precision in _AS_THE_PROGRAM and target != "tensorrt":
            store_narrow_weights(model.graph, int4_layers=len(packed))
        proto = _cleaned(model)
        if opset < LOWEST_CONVERTED:
            proto = lowered(proto, opset)
        if precision == "float16":
            proto = to_float16(proto)
        if precision == "dynamic-int8":
            proto = quantize_on_the_run(proto)
        if tail is not None:
            add_tail(proto, tail)
        _set_metadata(proto, card_json)
    counts = Counter(node.op_type for node in proto.graph.node)
    quantized = _quantized_layers(proto.graph)
    with _explained(places, path):
        size_bytes, fusion = write(proto, path, external_data)
    kinds = {node.name: node.op_type for node in proto.graph.node}
    return OnnxReport(
        path=path,
        size_bytes=size_bytes,
        opset=opset,
        dynamic_batch=dynamic_batch,
        nodes=len(proto.graph.node),
        int4_layers=len(packed),
        quantize_nodes=counts["QuantizeLinear"],
        dequantize_nodes=counts["DequantizeLinear"],
        weighted_layers=sum(counts[kind] for kind in (*WEIGHTED, "MatMulInteger")),
        quantized_layers=len(quantized) + counts["MatMulInteger"],
        fused_layers=len(quantized) - len(left := fusion.left(quantized)) + counts["MatMulInteger"],
        fused_operators=fusion.operators,
        outside=tuple(OperatorPlace(kinds[name], places.get(name, "")) for name in left),
    )


def _opset(opset: int | None, packed: tuple[LayerBits, ...]) -> int:
    if packed and opset is not None and opset < LOWEST_INT4_OPSET:
        raise ExportError(opset_too_low(opset, min(each.weights or 0 for each in packed)))
    return opset or (LOWEST_INT4_OPSET if packed else DEFAULT_OPSET)


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
    # Copying a graph renames nodes that are called like a Python builtin (`input`); the signature knows the old names.
    for node, original in zip(copied.graph.nodes, program.graph.nodes, strict=True):
        node.name = original.name
    return copied


def _with_batch_of_one(program: ExportedProgram) -> ExportedProgram:
    (user_input,) = (node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs)
    value = user_input.meta["val"]
    return torch.export.export(
        program.module(check_guards=False), (torch.zeros(1, *value.shape[1:], dtype=value.dtype),)
    )


def _convert(program: ExportedProgram, opset: int, output_names: Sequence[str]) -> onnx_ir.Model:
    try:
        with quick_conversion(), untraced_where_plain(program):
            converted = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                opset_version=opset,
                input_names=[INPUT_NAME],
                output_names=list(output_names),
            )
    except torch.onnx.errors.OnnxExporterError as error:
        if "No ONNX function found" in "".join(map(str, _causes(error))) and (node := _translated_node(error)):
            place = OperatorPlace(str(node.target), module_path(node))
            raise unsupported("ONNX", (place,), "ONNX has no translation of it") from error
        raise
    assert converted is not None  # None is the return of the older exporter
    model = converted.model
    if model.opset_imports[""] != opset:
        raise ValueError(
            f"this model cannot be expressed in ONNX opset {opset}; "
            f"the lowest that was reached is {model.opset_imports['']}"
        )
    return model


def _cleaned(model: onnx_ir.Model) -> onnx.ModelProto:
    """Drop what only a debugger of the exporter reads, and constants that are there already: a head of a detector has
    its weights once for each map that it looks at.
    """
    for clean in (
        onnx_passes.DeduplicateHashedInitializersPass(),
        onnx_passes.RemoveUnusedNodesPass(),
        onnx_passes.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        onnx_passes.RemoveUnusedOpsetsPass(),
        onnx_passes.ClearMetadataAndDocStringPass(),
    ):
        clean(model)
    model.graph.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    proto = onnx_ir.to_proto(model)
    # Shapes between nodes carry the exporter's notes as well; runtimes infer them again.
    del proto.graph.value_info[:]
    return proto


def _set_metadata(proto: onnx.ModelProto, card_json: str) -> None:
    """Put the card in, and nothing else that a runtime does not read."""
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, {CARD_KEY: card_json})
    del proto.graph.value_info[:]  # again: conversions add some


@contextmanager
def _explained(places: dict[str, str], path: Path) -> Iterator[None]:
    """Within, where ONNX Runtime cannot open the file, the error names the node and its place in the model."""
    try:
        yield
    except (UserError, OSError):  # what the disk says is no fault of the file
        raise
    except Exception as error:  # onnxruntime's errors share no base class below Exception
        if missing := re.search(r"implementation for (\w+)\(\d+\) node with name '([^']*)'", str(error)):
            place = OperatorPlace(f"onnx.{missing[1]}", places.get(missing[2], ""))
            raise unsupported("ONNX", (place,), "ONNX Runtime has no kernel for it") from error
        raise ExportError(
            f"ONNX Runtime cannot open what would become {path.name}: {first_line(error)}",
            hint="leave `opset`, `precision` and `target` at their defaults; where that does not help, "
            "replace what it names in the model, or leave this export out",
        ) from error


def _quantized_layers(graph: onnx.GraphProto) -> tuple[str, ...]:
    """Names of the nodes whose weights and inputs come from DequantizeLinear."""
    producer = {output: node for node in graph.node for output in node.output}

    def dequantized(name: str) -> bool:
        node = producer.get(name)
        while node is not None and node.op_type in LAYOUT:
            node = producer.get(node.input[0])
        return node is not None and node.op_type == "DequantizeLinear"

    return tuple(node.name for node in graph.node if node.op_type in WEIGHTED and all(map(dequantized, node.input[:2])))


def _module_path(namespace: str) -> str:
    """Return the deepest module of a note of the exporter.

    Such a note is `: Net/features: Sequential/features.0: Conv2d/conv: aten.conv2d`.
    """
    paths = [level.partition(":")[0] for level in namespace.split("/")[:-1]]
    return max(paths, key=len, default="")


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
