"""The exporters, between their declarations and the modules that do the work; and how their files are opened.

Importing this module is light: each exporter needs other libraries, and to open a `.tflite` or `.onnx` file takes no
TensorFlow, so every function imports its own modules when it is called.
"""

from __future__ import annotations

from pathlib import Path

from edgeopt.export.predictor import damaged_explained
from edgeopt.plugins import ExportContext, ExportResult, ModelState, Predictor
from edgeopt_tensorflow.options import ConvertedTfliteOptions, KerasOnnxOptions, SavedModelOptions


def export_tflite(state: ModelState, options: ConvertedTfliteOptions, context: ExportContext) -> ExportResult:
    """Writes a Keras network or a SavedModel as a `.tflite` file, for one image at a time.

    Raises `ExportError` naming the operator that TensorFlow Lite lacks, and `NothingChangedError` when the file does
    not have the precision that was asked for.
    """
    from edgeopt_tensorflow.model import tensorflow_model
    from edgeopt_tensorflow.tflite import require_single_images, write_tflite

    model = tensorflow_model(state)
    require_single_images(model.fixed_batch)
    return write_tflite(model.traced(1, state.preprocessing.shape), state, options, context)


def export_onnx(state: ModelState, options: KerasOnnxOptions, context: ExportContext) -> ExportResult:
    """Writes a Keras network or a SavedModel as an `.onnx` file; see `edgeopt_tensorflow.keras_onnx.write_onnx`."""
    from edgeopt_tensorflow.keras_onnx import write_onnx
    from edgeopt_tensorflow.model import tensorflow_model

    return write_onnx(tensorflow_model(state), state, options.opset, context)


def export_saved_model(
    state: ModelState,
    options: SavedModelOptions,  # noqa: ARG001 - there are none
    context: ExportContext,
) -> ExportResult:
    """Writes a Keras network or a SavedModel as a zipped SavedModel."""
    from edgeopt_tensorflow.model import tensorflow_model
    from edgeopt_tensorflow.saved_model import write_saved_model

    model = tensorflow_model(state)
    function = model.traced(None, state.preprocessing.shape)
    return write_saved_model(function, state, model.fixed_batch, context)


def convert_onnx_to_tflite(state: ModelState, options: ConvertedTfliteOptions, context: ExportContext) -> ExportResult:
    """Writes an ONNX model as a `.tflite` file, for one image at a time.

    Raises `ExportError` for a quantized source and for an operator that onnx2tf lacks, and `FunctionChangedError`
    when TensorFlow's answers would differ from ONNX Runtime's.
    """
    from edgeopt_tensorflow.onnx_convert import convert, onnx_source
    from edgeopt_tensorflow.tflite import require_single_images, write_tflite

    source, shape = onnx_source(state), state.preprocessing.shape
    require_single_images(source.batch)
    return write_tflite(convert(source, shape).traced(1, shape), state, options, context)


def convert_onnx_to_saved_model(
    state: ModelState,
    options: SavedModelOptions,  # noqa: ARG001 - there are none
    context: ExportContext,
) -> ExportResult:
    """Writes an ONNX model as a zipped SavedModel. Raises what `convert_onnx_to_tflite` raises."""
    from edgeopt_tensorflow.onnx_convert import convert, onnx_source
    from edgeopt_tensorflow.saved_model import write_saved_model

    source, shape = onnx_source(state), state.preprocessing.shape
    return write_saved_model(convert(source, shape).traced(source.batch, shape), state, source.batch, context)


def open_tflite(path: Path, threads: int) -> Predictor:
    """Opens a `.tflite` file in LiteRT, without TensorFlow."""
    from edgeopt_tflite.predictor import TflitePredictor

    with damaged_explained():
        return TflitePredictor(path, threads=threads)


def open_onnx(path: Path, threads: int) -> Predictor:
    """Opens an `.onnx` file in ONNX Runtime, without TensorFlow."""
    from edgeopt_onnx.predictor import OnnxPredictor

    with damaged_explained():
        return OnnxPredictor(path, threads=threads)


def open_saved_model(path: Path, threads: int) -> Predictor:  # noqa: ARG001 - TensorFlow reads the environment
    """Opens a zipped SavedModel in TensorFlow."""
    from edgeopt_tensorflow.saved_model import SavedModelPredictor

    return SavedModelPredictor(path)


def float32(options: ConvertedTfliteOptions) -> ConvertedTfliteOptions:
    """The options of the float file."""
    return options.model_copy(update={"precision": "float32", "quantized_io": "float32"})
