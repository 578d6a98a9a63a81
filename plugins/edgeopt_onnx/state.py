"""From a model state to an `.onnx` file, in the terms of edgeopt."""

from __future__ import annotations

from edgeopt.errors import ExportError, NothingChangedError, Problem
from edgeopt.plugin import ExportContext
from edgeopt.types import ExportResult, ModelState, TensorInfo
from edgeopt_onnx.export import INPUT_NAME, OUTPUT_NAME, export_onnx


def export_state(state: ModelState, opset: int, context: ExportContext, *, dynamic_batch: bool) -> ExportResult:
    """Writes the state's program to `context.path`.

    Raises `ExportError` naming the operator and its module when ONNX or ONNX Runtime cannot run it.
    """
    batch: int | str = "batch" if dynamic_batch else 1
    given = TensorInfo(INPUT_NAME, "float32", (batch, *state.input_shape), "NCHW")
    returned = TensorInfo(OUTPUT_NAME, "float32", (batch, len(state.classes)), "NC")
    card = context.card.with_tensors(given, returned)
    try:
        report = export_onnx(
            state.program, context.path, card_json=card.to_json(), opset=opset, dynamic_batch=dynamic_batch
        )
    except ValueError as error:
        raise ExportError(Problem(str(error), "choose another opset")) from error
    if state.precision != "float32" and report.quantized_layers == 0:
        raise NothingChangedError(f"the program is {state.precision}, and no layer of the file is")
    return ExportResult(
        input=given,
        output=returned,
        facts={
            "opset": report.opset,
            "nodes": report.nodes,
            "quantize_nodes": report.quantize_nodes,
            "dequantize_nodes": report.dequantize_nodes,
            "layers": report.weighted_layers,
            "layers_quantized": report.quantized_layers,
        },
    )
