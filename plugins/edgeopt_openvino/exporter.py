"""From a model state to an `.xml` with its `.bin`, in the terms of edgeopt."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import openvino

from edgeopt.files import storage_errors
from edgeopt.plugins import ExportContext, ExportError, ExportResult, ModelState, NothingChangedError
from edgeopt_onnx.exporter import write_state
from edgeopt_openvino.files import add_notes, companion, core, open_model, reason
from edgeopt_openvino.operators import modules_of, operators_of
from edgeopt_openvino.rewrites import rewrite

if TYPE_CHECKING:
    from edgeopt_openvino.options import OpenVinoOptions


def export_state(state: ModelState, options: OpenVinoOptions, context: ExportContext) -> ExportResult:
    """Writes the state's program to `context.path`, and its weights beside it.

    Raises `ExportError` naming what ONNX or OpenVINO cannot run, and `NothingChangedError` where the program is
    quantized and OpenVINO computes no layer in integers.
    """
    path, precision = context.path, "" if options.precision == "program" else options.precision
    with storage_errors(path), tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        onnx_file, pending = Path(folder) / "model.onnx", Path(folder) / path.name
        written = write_state(state, options.as_onnx(), replace(context, path=onnx_file))
        card = replace(context.card, precision=precision or state.precision)
        try:
            converted = core().read_model(onnx_file)
            rewrite(converted)
            openvino.save_model(converted, pending, compress_to_fp16=precision == "float16")
            add_notes(pending, card.with_tensors(written.input, written.outputs).to_json())
            model, opened = open_model(pending, threads=1)
        except (RuntimeError, ValueError) as error:
            raise ExportError(
                f"OpenVINO cannot run what would become {path.name}: {reason(error)}",
                hint="replace what it names in the model, or leave this export out",
            ) from error
        operators, modules = tuple(operators_of(opened)), modules_of(model)
        del model, opened  # they hold the file of the weights open
        companion(pending).replace(companion(path))
        pending.replace(path)
    in_integers = {name for each in operators if each.is_integer for name in each.stands_for} & modules.keys()
    is_quantized = state.precision != "float32"
    if is_quantized and not in_integers:
        raise NothingChangedError(f"the program is {state.precision}, and OpenVINO computes no layer of it in integers")
    outside = [module or name for name, module in modules.items() if name not in in_integers]
    return replace(
        written,
        precision=precision,
        delegated_share=len(in_integers) / len(modules) if is_quantized else None,
        outside=tuple(outside) if is_quantized else (),
        facts={
            "layers": len(modules),
            "layers_int8": len(in_integers),
            "kernels": dict(sorted(Counter(each.kernel for each in operators).items())),
        },
        companions=(companion(path).name,),
    )
