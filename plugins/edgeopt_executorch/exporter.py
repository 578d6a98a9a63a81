"""The exporter `executorch`: from a model state and options to a `.pte` file and its facts."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from edgeopt.export.predictor import input_of, outputs_of
from edgeopt.plugins import (
    ExportContext,
    ExportResult,
    ModelState,
    NothingChangedError,
)
from edgeopt_executorch.backends import QNN, XNNPACK
from edgeopt_executorch.lowering import export_executorch
from edgeopt_executorch.options import DEFAULT_CHIP, ExecuTorchOptions

FLOAT = "float32"
_WARNINGS = {"coreml": ("Core ML's compiler puts random names into the file: its bytes differ from run to run",)}


def export_state(state: ModelState, options: ExecuTorchOptions, context: ExportContext) -> ExportResult:
    """Writes the state's program to `context.path`.

    Raises `ExportError` naming the operator and its module when ExecuTorch cannot run it.
    """
    batch: int | str = 1 if options.max_batch == 1 else "batch"
    given = input_of(state, batch)
    returned = outputs_of(state, batch)
    precision = state.precision if options.precision == "program" else options.precision
    report = export_executorch(
        state.program,
        context.path,
        card_json=replace(context.card, precision=precision).with_tensors(given, returned).to_json(),
        max_batch=options.max_batch,
        precision=options.precision,
        backend=options.backend,
        chip=options.chip or DEFAULT_CHIP,
        int4_weights=options.int4_weights,
    )
    if precision not in (FLOAT, "float16") and report.quantized_layers == 0 and options.backend == XNNPACK:
        raise NothingChangedError(f"{precision} was asked for, and no layer of the file is")
    outside = Counter(str(place) for place in report.outside)
    return ExportResult(
        input=given,
        outputs=returned,
        delegated_share=report.delegated_share,
        outside=tuple(f"{count} x {place}" if count > 1 else place for place, count in outside.items()),
        facts={
            "backend": options.backend,
            **({"chip": options.chip or DEFAULT_CHIP} if options.backend == QNN else {}),
            "partitions": report.partitions,
            "compute_nodes": report.compute_nodes,
            "delegated_nodes": report.delegated_nodes,
            "outside_nodes": len(report.outside),
            "layers": report.weighted_layers,
            "layers_quantized": report.quantized_layers,
            "largest_batch": report.max_batch,
        },
        warnings=_WARNINGS.get(options.backend, ()),
        precision=precision,
        not_run=""
        if options.backend == XNNPACK
        else f"ExecuTorch's backend {options.backend!r} runs on the device alone",
    )
