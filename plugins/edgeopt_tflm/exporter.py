"""From a model state to a file for microcontrollers, in the terms of edgeopt.

```
program ─▶ edgeopt_tflite ─▶ operators known? ─▶ rewritten, bare ─▶ opened, called once ─▶ footprint ─▶ file, .h, .cc
```
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from edgeopt.export.refusals import not_converted
from edgeopt.files import write_aside
from edgeopt.networks.bits import has_wide_activations, layer_bits
from edgeopt.plugins import ExportContext, ExportError, ExportResult, ModelState, Problem
from edgeopt_tflite.accelerators.ethos_u import estimate
from edgeopt_tflite.audit import is_quantized
from edgeopt_tflite.convert import convert
from edgeopt_tflite.exporter import export_state as export_tflite
from edgeopt_tflite.graph import Graph
from edgeopt_tflite.options import TensorType
from edgeopt_tflm.footprint import bare, footprint
from edgeopt_tflm.interpreter import MicroFile
from edgeopt_tflm.operators import lacking
from edgeopt_tflm.options import TflmOptions, as_tflite
from edgeopt_tflm.rewrites import absorb_padding
from edgeopt_tflm.sources import write_sources

_STAND_IN = "the interpreter of tflite-micro"  # whose reference kernels on a PC say nothing of a board's latency


def export_state(state: ModelState, options: TflmOptions, context: ExportContext) -> ExportResult:
    """Writes the state's program to `context.path`.

    Raises `ExportError` naming the operators that microcontrollers cannot run, and as the exporter `tflite` does.
    """
    is_wide = has_wide_activations(state.program)
    values: TensorType = "int16" if is_wide else "int8" if is_quantized(state.program) else "float32"
    written = export_tflite(state, as_tflite(values), context)
    graph = Graph(context.path.read_bytes())
    if (problem := lacking(graph.kinds())) is not None:
        raise ExportError(problem)
    absorbed = absorb_padding(graph)
    layers = [layer.name for layer in layer_bits(state.program)]
    content = bare(graph)
    try:
        file = MicroFile(content, graph)
    except ValueError as error:
        raise not_converted(f"TensorFlow Lite Micro cannot open the file that was made: {error}") from error
    file.run(np.zeros(graph.shape(int(graph.main.inputs[0])), written.input.dtype))
    taken = footprint(content, file.arena(), graph, layers)
    write_aside(context.path, content)
    if options.accelerator and is_quantized(state.program):
        taken = replace(taken, estimate=estimate(context.path, options.accelerator))
    card = replace(context.card, precision=state.precision, footprint=taken).with_tensors(
        written.input, written.outputs
    )
    beside = write_sources(context.path, card, content) if options.sources else ()
    counted = {name: written.facts[name] for name in ("layers", "layers_quantized", "operators_kept_float")}
    return replace(
        written,
        delegated_share=None,  # of XNNPACK, which no microcontroller has
        outside=(),
        facts={
            **counted,
            "paddings_absorbed": absorbed,
            "arena_bytes": taken.ram_bytes,
            **{f"arena_{part}_bytes": count for part, count in taken.ram_parts.items()},
            "flash_bytes": taken.flash_bytes,
            "operators": dict(taken.operators),
        },
        warnings=_warnings(written, is_wide=is_wide),
        stand_in=_STAND_IN,
        beside=beside,
        footprint=taken,
    )


def _warnings(written: ExportResult, *, is_wide: bool) -> tuple[str, ...]:
    given = () if is_wide else written.warnings  # there that XNNPACK takes no int16, which no microcontroller has
    if not (count := written.facts["operators_kept_float"]):
        return given
    told = "one operator computes" if count == 1 else f"{count} operators compute"
    why = "in float, such as a hard swish or a sigmoid: four times the RAM, and slow where there is no FPU"
    return (*given, f"{told} {why}; a ReLU in its place is an integer operator")


def refused(state: ModelState, _options: TflmOptions) -> Iterator[Problem]:
    """What speaks against a network that nothing has trained yet: operators that microcontrollers cannot run."""
    try:
        kinds = Graph(convert(state.program)).kinds()
    except ExportError as error:
        yield from error.problems
        return
    if (problem := lacking(kinds)) is not None:
        yield problem
