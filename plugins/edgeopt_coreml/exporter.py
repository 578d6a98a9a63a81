"""From a model state to a zipped `.mlpackage`, in the terms of edgeopt.

```
program ─▶ its weights as integers ─▶ coremltools ─▶ read back, checked ─▶ card within ─▶ zip
```
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeopt.export.predictor import input_of, outputs_of, quiet
from edgeopt.export.refusals import not_made_of, require_whole_activations
from edgeopt.files import storage_errors
from edgeopt.plugins import Card, ExportContext, ExportError, ExportResult, Json, ModelState, NothingChangedError
from edgeopt_coreml.conversion import convert
from edgeopt_coreml.graph_check import check_graph
from edgeopt_coreml.options import EIGHT_BITS, CoreMlOptions
from edgeopt_coreml.package import CARD_KEY, WEIGHTS, write_package
from edgeopt_coreml.tools import not_run

_DATE = "com.github.apple.coremltools.conversion_date"  # with it no two days' files would have the same bytes
_FLOAT = ("float32", "float16")


def export_state(state: ModelState, options: CoreMlOptions, context: ExportContext) -> ExportResult:
    """Writes the state's program to `context.path`.

    Raises `ExportError` naming what Core ML does not take, and `NothingChangedError` where integers are asked for and
    no layer of the file has them.
    """
    converted = "" if options.precision == "program" else options.precision
    if converted and state.precision != "float32":
        raise ExportError(not_made_of(state.precision, converted))
    require_whole_activations("coreml", EIGHT_BITS, state.program)
    precision = converted or state.precision
    arithmetic = precision if precision in _FLOAT else options.arithmetic
    has_int8_weights = precision == "weight-only-int8"
    # Core ML has no integers of eight bytes
    returned = [replace(each, dtype=each.dtype.replace("int64", "int32")) for each in outputs_of(state, 1)]
    tensors = input_of(state, 1), tuple(returned)
    with storage_errors(context.path), tempfile.TemporaryDirectory() as name:
        made = Path(name) / "made.mlpackage"
        target = options.deployment_target
        spec, modules = convert(state, tensors, made, target, arithmetic, has_int8_weights=has_int8_weights)
        with quiet():
            layers, operators = check_graph(spec, (made / WEIGHTS).parent, tensors, modules)
        integer = [each.has_integer_weight if has_int8_weights else each.is_integer for each in layers]
        if precision not in _FLOAT and not any(integer):
            raise NothingChangedError(f"the file was to be {precision}, and no layer of it is")
        card = replace(context.card, precision=precision).with_tensors(*tensors)
        _describe(spec, card)
        write_package(context.path, spec, (made / WEIGHTS).read_bytes(), card.to_json())
    facts: dict[str, Json] = {"layers": len(layers), "layers_quantized": sum(integer)}
    facts |= {"arithmetic": arithmetic, "deployment_target": target, "operators": operators}
    in_float = (each.module for each, is_integer in zip(layers, integer, strict=True) if not is_integer)
    outside = () if precision in _FLOAT else tuple(in_float)
    reason = not_run(spec.specificationVersion)
    return ExportResult(*tensors, precision=converted, outside=outside, facts=facts, not_run=reason)


def _describe(spec: Any, card: Card) -> None:
    """Writes the card into the model's metadata, and into its description what Xcode shows to people."""
    metadata = spec.description.metadata
    metadata.userDefined.pop(_DATE, None)
    metadata.userDefined[CARD_KEY] = card.to_json()
    metadata.shortDescription = f"{card.task}, {card.precision}; {', '.join(card.classes)}"
    mean, std = card.preprocessing["mean"], card.preprocessing["std"]
    is_image = spec.description.input[0].type.WhichOneof("Type") == "imageType"
    said = "an image, which the model normalizes" if is_image else "channels first: (value / 255 - mean) / std"
    spec.description.input[0].shortDescription = f"{said}, with mean {mean} and std {std}"
