"""From a model state to an `.xml` with its `.bin`, in the terms of edgeopt."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import openvino

from edgeopt.export.companions import weights_beside
from edgeopt.export.refusals import not_converted
from edgeopt.files import storage_errors
from edgeopt.networks.bits import PACKED_BITS
from edgeopt.plugins import ExportContext, ExportError, ExportResult, ModelState, NothingChangedError
from edgeopt_onnx.exporter import write_state
from edgeopt_openvino.files import add_notes
from edgeopt_openvino.on_device import open_model, reason
from edgeopt_openvino.operators import layers_of, operators_of
from edgeopt_openvino.options import OpenVinoOptions, no_packed_weights
from edgeopt_openvino.rewrites import rewrite


def export_state(state: ModelState, options: OpenVinoOptions, context: ExportContext) -> ExportResult:
    """Writes the state's program to `context.path`, and its weights beside it.

    Raises `ExportError` naming what ONNX or OpenVINO cannot run, and `NothingChangedError` where the program is
    quantized and OpenVINO computes no layer in integers.
    """
    path, is_quantized = context.path, state.precision != "float32"
    precision = "" if options.precision == "program" else options.precision
    with storage_errors(path), tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        onnx_file, pending = Path(folder) / "model.onnx", Path(folder) / path.name
        written = write_state(state, options.as_onnx(), replace(context, path=onnx_file))
        if written.facts["layers_int4"]:
            raise ExportError(no_packed_weights(PACKED_BITS))
        card = replace(context.card, precision=precision or state.precision)
        try:
            converted = openvino.Core().read_model(onnx_file)
            rewrite(converted, is_quantized=is_quantized)
            openvino.save_model(converted, pending, compress_to_fp16=precision == "float16")
            add_notes(pending, card.with_tensors(written.input, written.outputs).to_json())
            model, opened = open_model(pending, threads=1)
        except (RuntimeError, ValueError) as error:
            said = f"OpenVINO cannot run what would become {path.name}: {reason(error.__cause__ or error)}"
            raise not_converted(said) from error
        operators, layers = tuple(operators_of(opened)), layers_of(model)
        del model, opened  # they hold the file of the weights open
        weights_beside(pending).replace(weights_beside(path))
        pending.replace(path)
    integers = {name for each in operators if each.is_integer for name in each.stands_for}
    in_float = [module or min(names) for names, module in layers.items() if not names & integers]
    if is_quantized and len(in_float) == len(layers):
        raise NothingChangedError(f"the program is {state.precision}, and OpenVINO computes no layer of it in integers")
    return replace(
        written,
        precision=precision,
        delegated_share=1 - len(in_float) / len(layers) if is_quantized else None,
        outside=tuple(in_float) if is_quantized else (),
        facts={
            "layers": len(layers),
            "layers_int8": len(layers) - len(in_float),
            "kernels": dict(sorted(Counter(each.kernel for each in operators).items())),
        },
        companions=(weights_beside(path).name,),
    )
