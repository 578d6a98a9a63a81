"""The exporter `ncnn`: from a model state and options to a `.param` with its `.bin`, and their facts."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch

from edgeopt.export.companions import weights_beside
from edgeopt.export.predictor import input_of, outputs_of, quiet
from edgeopt.export.refusals import not_made_of, require_one_image, require_whole_activations
from edgeopt.networks.capture import require_same_function
from edgeopt.plugins import ExportContext, ExportError, ExportResult, ModelState, NothingChangedError, file_digest
from edgeopt_ncnn.conversion import convert
from edgeopt_ncnn.graph import Graph
from edgeopt_ncnn.on_device import Param, open_file
from edgeopt_ncnn.options import EIGHT_BITS, NcnnOptions
from edgeopt_ncnn.rewrites.fully_connected import as_convolutions
from edgeopt_ncnn.rewrites.hard_swish import fuse_hard_swish
from edgeopt_ncnn.rewrites.integers import name_layers, quantize
from edgeopt_ncnn.rewrites.traced import Traced, trace

_TOLERANCES = {False: 1e-3, True: 0.05}  # of an output's range: last bits differ, and with True those of float16


def export_state(state: ModelState, options: NcnnOptions, context: ExportContext) -> ExportResult:
    """Writes the state's program to `context.path` and the `.bin` beside it.

    Raises `ExportError` naming the operators with their modules when ncnn cannot run them, and `FunctionChangedError`
    when it computes something else than the program.
    """
    is_half = options.precision == "float16"
    if is_half and state.precision != "float32":
        raise ExportError(not_made_of(state.precision, "float16"))
    require_whole_activations("ncnn", EIGHT_BITS, state.program)
    require_one_image(state.program, "ncnn")
    given, returned = input_of(state, 1), outputs_of(state, 1)
    with quiet():
        traced = trace(state)
        graph, weights = convert(traced, half=is_half)
    graph.rename({"in0": given.name, **{f"out{place}": each.name for place, each in enumerate(returned)}})
    precision = "float16" if is_half else state.precision
    card_json = replace(context.card, precision=precision).with_tensors(given, returned).to_json()
    fused = fuse_hard_swish(graph)
    name_layers(graph, traced.layers)
    _write(context.path, graph, weights, card_json)
    _require_same(traced, context.path, _TOLERANCES[is_half])
    float_layers: tuple[str, ...] = ()
    rounded = sum(each.is_rounded for each in traced.layers)
    if rounded:
        weights, float_layers = quantize(graph, weights, traced.layers)
        as_convolutions(graph, {each.name for each in traced.layers if each.takes_a_vector})
        _write(context.path, graph, weights, card_json)
    quantized = rounded - len(float_layers)
    if precision not in ("float32", "float16") and not quantized:
        raise NothingChangedError(f"the program is {precision}, and no layer of the file is")
    return ExportResult(
        input=given,
        outputs=returned,
        precision=precision,
        outside=tuple(f"{name} (quantized, and float in the file)" for name in float_layers),
        companions=(weights_beside(context.path).name,),
        facts={
            "nodes": len(graph.layers),
            "layers": len(traced.layers),
            "layers_quantized": quantized,
            "roundings_left_out": traced.roundings_left_out,
            "hard_swishes_fused": fused,
        },
    )


def _write(path: Path, graph: Graph, weights: bytes, card_json: str) -> None:
    weights_beside(path).write_bytes(weights)
    path.write_bytes(Param(graph.text().encode(), card_json, file_digest(weights_beside(path))).content())


def _require_same(traced: Traced, path: Path, tolerance: float) -> None:
    """Raises `FunctionChangedError` where the file answers otherwise than the program, before either is rounded."""
    with closing(open_file(path, threads=1)) as file:
        require_same_function(
            traced.module,
            lambda images: tuple(map(torch.from_numpy, file.predict(images.numpy()))),
            traced.example,
            "converting to ncnn",
            hint="an operator of this model is another one in pnnx or ncnn: replace it, or leave this export out",
            tolerance=tolerance,
        )
