"""From a model state to a `.tflite` file, in the terms of edgeopt.

```
program ─▶ litert-torch ─▶ audit ─▶ rewrites ─▶ precision, tensor types, four bits ─▶ metadata ─▶ opened once ─▶ file
```
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgeopt.export.predictor import layout_of
from edgeopt.export.refusals import not_made_of, require_named_outputs, require_whole_activations
from edgeopt.files import write_aside
from edgeopt.networks.bits import has_wide_activations
from edgeopt.plugins import ExportContext, ExportError, ExportResult, InputKind, ModelState, TensorInfo, TfliteTail
from edgeopt_tflite import rewrites
from edgeopt_tflite.audit import FileLayerCounts, is_quantized, require_converted, require_float, require_int8
from edgeopt_tflite.convert import convert
from edgeopt_tflite.delegate import delegation
from edgeopt_tflite.graph import Graph
from edgeopt_tflite.int4 import Packed, pack_weights
from edgeopt_tflite.int16 import operators_kept_float, undelegated
from edgeopt_tflite.metadata import METADATA_KEY, metadata_of, packed
from edgeopt_tflite.options import CONVERTED, SATURATES, Precision, TensorType, TfliteOptions, unfit_io
from edgeopt_tflite.precision import to_precision
from edgeopt_tflite.tail import add_tail

INPUT_NAME = "input"


def export_state(state: ModelState, options: TfliteOptions, context: ExportContext) -> ExportResult:
    """Writes the state's program to `context.path`.

    Raises `ExportError` naming the operator and its module when LiteRT cannot run it, or when the options do not fit
    the program, and `NothingChangedError` when what was asked for did not come about.
    """
    precision = options.precision
    if precision in CONVERTED and is_quantized(state.program):
        raise ExportError(not_made_of(state.precision, precision))
    require_whole_activations("tflite", SATURATES, state.program)
    is_wide = has_wide_activations(state.program)
    if is_quantized(state.program) and (problems := list(unfit_io(options.quantized_io, is_wide=is_wide))):
        raise ExportError(*problems)
    takes_pixels = state.input_kind is InputKind.UINT8_NHWC
    require_named_outputs(state.program, state.output_names)
    graph = Graph(convert(state.program, takes_pixels=takes_pixels))
    graph.order_outputs()
    made = _made(state, graph, precision, options.quantized_io)
    packed_weights = pack_weights(state.program, graph) if options.int4_weights == "packed" else Packed()
    if isinstance(context.tail, TfliteTail):
        add_tail(graph, context.tail)
    graph.compact(INPUT_NAME, context.output_names or state.output_names)
    given, returned = _tensor(graph, graph.main.inputs[0]), tuple(_tensor(graph, each) for each in graph.main.outputs)
    given = replace(given, layout="NHWC", holds="pixels" if takes_pixels else "values")
    converted = precision if precision in CONVERTED else ""
    card = replace(context.card, precision=converted or state.precision).with_tensors(given, returned)
    graph.set_metadata(METADATA_KEY, metadata_of(card, given, returned))
    content = packed(graph.to_bytes(), card)
    taken = delegation(content)
    warnings = (*packed_weights.warnings, *undelegated(graph))
    write_aside(context.path, content)
    return ExportResult(
        input=given,
        outputs=returned,
        precision=converted,
        delegated_share=taken.share,
        outside=taken.outside,
        facts={
            "partitions": taken.partitions,
            "operators": taken.operators,
            "delegated_operators": taken.delegated,
            "layers": made.layers.layers,
            "layers_quantized": made.layers.int8 + made.layers.weights,
            "layers_int4": packed_weights.layers,
            "operators_kept_float": made.kept_float,
        },
        warnings=warnings,
    )


@dataclass(frozen=True)
class _Made:
    layers: FileLayerCounts
    kept_float: int
    """Operators that the program has in int8 and the file in float."""


def _made(state: ModelState, graph: Graph, precision: Precision, quantized_io: TensorType) -> _Made:
    """The precision and the tensor types that were asked for, made in place."""
    program = state.program
    rewrites.plain_padding(graph)
    if is_quantized(program):
        layers = require_int8(program, graph)
        kept_float = rewrites.float_operators(graph) + operators_kept_float(program)
        if precision == "auto":
            kept_float += rewrites.float_islands(graph)
        rewrites.set_tensor_types(graph, quantized_io)
        return _Made(layers, kept_float)
    layers = require_float(program, graph)
    if quantized_io != "float32":
        raise ExportError(
            f"quantized_io = {quantized_io!r} needs an integer program, and this one is {state.precision}",
            hint='use quantized_io = "float32", or add a pass such as "ptq"',
        )
    if precision in CONVERTED:
        converted = Graph(to_precision(graph.to_bytes(), precision))
        graph.model, graph.main = converted.model, converted.main
        layers = require_converted(layers, graph, precision)
    return _Made(layers, 0)


def _tensor(graph: Graph, index: int) -> TensorInfo:
    scale, zero_point = graph.quantization(index) or (None, None)
    name = graph.name(index)
    layout = layout_of(len(graph.shape(index)))
    return TensorInfo(name, graph.dtype(index), graph.shape(index), layout, scale, zero_point)
