"""Writes `.tflite` files with TensorFlow's converter, in four precisions, each checked in the file itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.export.predictor import layout_of, quiet
from edgeopt.export.refusals import OperatorPlace, unsupported
from edgeopt.files import write_aside
from edgeopt.plugins import (
    ExportContext,
    ExportError,
    ExportResult,
    ModelState,
    NothingChangedError,
    Problem,
    TensorInfo,
    first_line,
)
from edgeopt_tensorflow.model import INPUT_NAME, keys_of
from edgeopt_tensorflow.runtime import tf
from edgeopt_tflite.delegate import delegation
from edgeopt_tflite.graph import Graph
from edgeopt_tflite.metadata import METADATA_KEY, metadata_of, packed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt_tensorflow.options import ConvertedTfliteOptions, Precision

_TYPES = {"float32": tf.float32, "int8": tf.int8, "uint8": tf.uint8}


@dataclass(frozen=True)
class TfliteConversion:
    """What is to be made of a function."""

    precision: Precision
    io_type: str
    calibration: Callable[[], Iterator[NDArray[np.float32]]]


def require_single_images(batch: int | None) -> None:
    """Raises `ExportError` for a model that takes another batch than one and no other."""
    if batch not in (None, 1):
        raise ExportError(
            f"the model takes {batch} images at once, and a .tflite file takes one",
            hint="save the model with an open batch dimension",
        )


def write_tflite(
    function: Any, state: ModelState, options: ConvertedTfliteOptions, context: ExportContext
) -> ExportResult:
    """Converts a concrete function of one image, NHWC, and writes the file with its card inside."""
    split = context.calibration
    count = min(len(split), options.calibration_images)

    def calibration() -> Iterator[NDArray[np.float32]]:
        with context.progress.bar("calibrating", count) as bar:
            for index in range(count):
                yield state.preprocessing.normalize(split.pixels([index])).transpose(0, 2, 3, 1)
                bar.advance()

    graph = Graph(convert(function, TfliteConversion(options.precision, options.quantized_io, calibration)))
    facts = _facts(graph)
    _require_precision(options.precision, facts)
    graph.order_outputs()
    graph.compact(INPUT_NAME, state.output_names)
    given, *returned = _tensors(graph, state.output_names)
    card = replace(context.card, precision=options.precision).with_tensors(given, tuple(returned))
    graph.set_metadata(METADATA_KEY, metadata_of(card, given, returned))
    content = packed(graph.to_bytes(), card)
    taken = delegation(content)
    write_aside(context.path, content)
    return ExportResult(
        given,
        tuple(returned),
        taken.share,
        taken.outside,
        facts | {"partitions": taken.partitions, "operators": taken.operators},
        precision=options.precision,
    )


def convert(function: Any, wanted: TfliteConversion) -> bytes:
    """The bytes of a `.tflite` file of a concrete function whose one input is float32.

    Variables become constants first: the converter leaves those of Keras 3 as resources, and then quantizes nothing.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    constant = convert_variables_to_constants_v2(function)
    (spec,) = (each for each in constant.inputs if each.dtype == tf.float32)

    def serve(input: Any) -> dict[str, Any]:
        answers = constant(input)
        return dict(zip(keys_of(len(answers)), answers, strict=True))

    served = tf.function(serve, input_signature=[tf.TensorSpec(spec.shape, spec.dtype, name=INPUT_NAME)])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([served.get_concrete_function()], tf.Module())
    if wanted.precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if wanted.precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if wanted.precision == "int8":
        converter.representative_dataset = lambda: ({INPUT_NAME: image} for image in wanted.calibration())
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = _TYPES[wanted.io_type]
    try:
        with quiet():
            content: bytes = converter.convert()
    except Exception as error:  # the converter's errors share no base class below Exception
        raise _refused(error) from error
    return content


def _refused(error: Exception) -> ExportError:
    names = re.findall(r"'?(tf\.\w+|tfl\.\w+)'? op|Quantization not yet supported for op: '(\w+)'", str(error))
    found = sorted({name or other for name, other in names})
    if found:
        places = [OperatorPlace(name, "") for name in found]
        return unsupported("TensorFlow Lite", places, "its converter has no translation of it in this precision")
    return ExportError(
        Problem(f"TensorFlow's converter refuses the model: {first_line(error)}", "try another precision")
    )


def _facts(graph: Graph) -> dict[str, int]:
    """How many layers there are, and how many are quantized, have int8 weights, or have float16 weights."""
    layers = list(graph.layers())
    return {
        "layers": len(layers),
        "layers_quantized": sum(each.value == each.weight == "int8" for each in layers),
        "layers_with_int8_weights": sum(each.weight == "int8" for each in layers),
        "layers_with_float16_weights": sum(each.weight == "float16" for each in layers),
    }


def _require_precision(precision: Precision, facts: dict[str, int]) -> None:
    """Raises where a file was to be converted and is not; a file must be what its row says."""
    fact = {
        "float16": "layers_with_float16_weights",
        "dynamic-int8": "layers_with_int8_weights",
        "int8": "layers_quantized",
    }.get(precision)
    if fact is not None and facts[fact] == 0:
        raise NothingChangedError(
            f"{precision} was asked for, and no layer of the file is", hint='use precision = "float32" for this model'
        )


def _tensors(graph: Graph, output_names: Sequence[str]) -> list[TensorInfo]:
    """The input, and then the outputs."""
    infos: list[TensorInfo] = []
    for name, tensor in zip((INPUT_NAME, *output_names), (*graph.main.inputs, *graph.main.outputs), strict=True):
        shape = graph.shape(tensor)
        layout = layout_of(len(shape)) if infos else "NHWC"
        scale, zero_point = graph.quantization(tensor) or (None, None)
        infos.append(TensorInfo(name, graph.dtype(tensor), shape, layout, scale, zero_point))
    return infos
