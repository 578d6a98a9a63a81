"""From a model state to an `.onnx` file, in the terms of edgeopt."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgeopt.export.predictor import input_of, outputs_of
from edgeopt.export.refusals import not_made_of
from edgeopt.plugins import (
    ExportContext,
    ExportError,
    ExportResult,
    Json,
    ModelState,
    NothingChangedError,
    OnnxTail,
    Problem,
)
from edgeopt_onnx.auto.chosen import RECORDED, Choice, choose
from edgeopt_onnx.auto.costs import X86_VNNI, Costs
from edgeopt_onnx.conversion import OnnxReport, export_onnx
from edgeopt_onnx.options import CONVERTED, INPUT_NAME, companion
from edgeopt_onnx.tail import outputs_of_tail

if TYPE_CHECKING:
    from edgeopt_onnx.options import OnnxOptions


def export_state(state: ModelState, options: OnnxOptions, context: ExportContext) -> ExportResult:
    """Writes the state's program to `context.path`.

    Raises `ExportError` naming the operator and its module when ONNX or ONNX Runtime cannot run it.
    """
    if options.precision != "auto":
        return write_state(state, options, context)
    choice = choose(options.costs, options.target)
    written = write_state(state, options, context, choice.costs(), choice.source)
    return replace(written, warnings=(*written.warnings, *_another_processor(choice)))


def write_state(
    state: ModelState, options: OnnxOptions, context: ExportContext, costs: Costs | None = None, source: str = ""
) -> ExportResult:
    """Writes the state's program to `context.path`; precision "auto" goes by `costs`, which are from `source`.

    Raises `ExportError` as `export_state` does.
    """
    if options.precision in CONVERTED and state.precision != "float32":
        raise ExportError(not_made_of(state.precision, options.precision))
    batch: int | str = "batch" if options.dynamic_batch else 1
    given = input_of(state, batch, INPUT_NAME)
    tail = context.tail if isinstance(context.tail, OnnxTail) else None
    returned = outputs_of(state, batch) if tail is None else outputs_of_tail(tail, batch)
    card = context.card.with_tensors(given, returned)
    try:
        report = export_onnx(
            state.program,
            context.path,
            card_json=card.to_json(),
            output_names=state.output_names,
            opset=options.opset,
            dynamic_batch=options.dynamic_batch,
            target=options.target,
            precision=options.precision,
            costs=costs,
            external_data=options.external_data,
            tail=tail,
        )
    except ValueError as error:
        raise ExportError(Problem(str(error), "leave `opset` out, or choose a later one", option="opset")) from error
    if state.precision != "float32" and options.precision == "program" and report.quantized_layers == 0:
        raise NothingChangedError(f"the program is {state.precision}, and no layer of the file is")
    return ExportResult(
        input=given,
        outputs=returned,
        precision=options.precision if options.precision in CONVERTED else "",
        outside=tuple(map(str, report.outside)),
        facts={**_facts(report), **(_costs_facts(source, costs) if costs else {})},
        companions=tuple(file.name for file in [companion(context.path)] if file.exists()),
        batch_dependent=options.dynamic_batch and options.precision == "dynamic-int8",  # one scale for the whole batch
    )


def _costs_facts(source: str, costs: Costs) -> dict[str, Json]:
    return {"costs": source, "costs_of": f"{costs.processor} ({costs.architecture}), {costs.runtime}"}


def _another_processor(choice: Choice) -> tuple[str, ...]:
    """What is to be said where the recorded costs are not those of this machine's processor."""
    if choice.source != RECORDED or choice.processor.has_avx512_vnni:
        return ()
    text = (
        f'precision "auto" chose by the costs of {X86_VNNI.processor}, and this is {choice.processor}: costs = '
        '"measured" chooses for this machine'
    )
    return (text,)


def _facts(report: OnnxReport) -> dict[str, Json]:
    return {
        "opset": report.opset,
        "nodes": report.nodes,
        "quantize_nodes": report.quantize_nodes,
        "dequantize_nodes": report.dequantize_nodes,
        "layers": report.weighted_layers,
        "layers_quantized": report.quantized_layers,
        "layers_int4": report.int4_layers,
        "layers_fused": report.fused_layers,
        "operators_fused": dict(report.fused_operators),
    }
