"""From a model state to a `.pte` file, in the terms of edgeopt."""

from __future__ import annotations

from collections import Counter

from edgeopt.errors import NothingChangedError
from edgeopt.exporting import input_of
from edgeopt.plugin import ExportContext
from edgeopt.types import ExportResult, ModelState, TensorInfo
from edgeopt_executorch.export import export_executorch


def export_state(state: ModelState, max_batch: int, context: ExportContext) -> ExportResult:
    """Writes the state's program to `context.path`.

    Raises `ExportError` naming the operator and its module when ExecuTorch cannot run it.
    """
    batch: int | str = 1 if max_batch == 1 else "batch"
    given = input_of(state, batch)
    returned = TensorInfo("logits", "float32", (batch, len(state.classes)), "NC")
    card = context.card.with_tensors(given, returned)
    report = export_executorch(state.program, context.path, card_json=card.to_json(), max_batch=max_batch)
    if state.precision != "float32" and report.quantized_layers == 0:
        raise NothingChangedError(f"the program is {state.precision}, and no layer of the file is")
    outside = Counter(str(place) for place in report.outside)
    return ExportResult(
        input=given,
        output=returned,
        delegated_share=report.delegated_share,
        outside=tuple(f"{count} x {place}" if count > 1 else place for place, count in outside.items()),
        facts={
            "partitions": report.partitions,
            "compute_nodes": report.compute_nodes,
            "delegated_nodes": report.delegated_nodes,
            "outside_nodes": len(report.outside),
            "layers": report.weighted_layers,
            "layers_quantized": report.quantized_layers,
            "largest_batch": report.max_batch,
        },
    )
