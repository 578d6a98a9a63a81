"""Declares models, training, exporters and readers of TensorFlow and Keras."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeopt.files import where_looked
from edgeopt.networks.weights_option import require_checkpoint
from edgeopt.plugins import (
    CheckpointError,
    DatasetOptions,
    ExporterPlugin,
    ModelPlugin,
    ModelState,
    OnDevice,
    PassContext,
    PassPlugin,
    Problem,
    ReaderPlugin,
    TrainingData,
    files_fingerprint,
    hookimpl,
)
from edgeopt_tensorflow.exporter import (
    convert_onnx_to_saved_model,
    convert_onnx_to_tflite,
    export_onnx,
    export_saved_model,
    export_tflite,
    float32,
    open_onnx,
    open_saved_model,
    open_tflite,
)
from edgeopt_tensorflow.options import (
    KERAS,
    ONNX,
    ApplicationsOptions,
    ConvertedTfliteOptions,
    KerasFileOptions,
    KerasOnnxOptions,
    KerasReaderOptions,
    KerasTrainOptions,
    OnnxReaderOptions,
    SavedModelOptions,
)
from edgeopt_tflite.plugin import ACCELERATORS

#: Packages of other plugins that the work of this one uses, and that those use.
_LIBRARIES = ("edgeopt_onnx", "edgeopt_tflite")


_INSTALL = "edgeopt[tensorflow]"
_TENSORFLOW = ("tensorflow", "keras")
_TFLITE = (*_TENSORFLOW, "ai-edge-litert")
_ONNX2TF = ("tensorflow", "onnx2tf", "tf-keras", "onnx-graphsurgeon", "sng4onnx", "psutil", "onnx", "onnxruntime")


def build_application(options: ApplicationsOptions, data: TrainingData) -> ModelState:
    """A network of Keras Applications for the classes of `data`."""
    seed = _drawn_seed()
    from edgeopt_tensorflow.applications import build  # TensorFlow is heavy

    return build(options, data, seed)


def fingerprint_application(options: ApplicationsOptions) -> str:
    """Size and time of the file of weights; raises `CheckpointError` when it is not there."""
    if options.weights in ("none", "imagenet"):
        return ""
    path = Path(options.weights).expanduser()
    require_checkpoint(path)
    return files_fingerprint(path)


def build_file(options: KerasFileOptions, data: TrainingData) -> ModelState:
    """The model of a file for the classes of `data`."""
    seed = _drawn_seed()
    from edgeopt_tensorflow.keras_files import build  # TensorFlow is heavy
    from edgeopt_tensorflow.runtime import keras

    keras.utils.set_random_seed(seed)
    return build(options, data)


def _drawn_seed() -> int:
    """A seed by the stage's own; before TensorFlow is imported, as its import draws from NumPy's generator too."""
    import numpy as np  # heavy

    return int(np.random.randint(2**31))


def fingerprint_file(options: KerasFileOptions) -> str:
    """Names, sizes and times of the file or folder; raises `CheckpointError` when it is not there."""
    path = Path(options.path).expanduser()
    if not path.exists():
        raise CheckpointError(
            Problem(
                f"{path} does not exist{where_looked(path)}",
                "give a .keras or .h5 file, or the folder of a SavedModel",
                option="path",
            )
        )
    return files_fingerprint(path)


def train(state: ModelState, options: KerasTrainOptions, context: PassContext) -> ModelState:
    """Trains a copy of the network on the training split; see `edgeopt_tensorflow.train`."""
    from edgeopt_tensorflow.train import train_model  # TensorFlow is heavy

    return train_model(state, options, context)


def read_keras(path: Path, options: KerasReaderOptions) -> ModelState:
    """Opens a `.keras` or `.h5` file, or a SavedModel folder; see `edgeopt_tensorflow.keras_files`."""
    from edgeopt_tensorflow.keras_files import read  # TensorFlow is heavy

    return read(path, options)


def read_onnx(path: Path, options: OnnxReaderOptions) -> ModelState:
    """Opens an `.onnx` file; see `edgeopt_tensorflow.onnx_reader`."""
    from edgeopt_tensorflow.onnx_reader import read  # onnx and ONNX Runtime are heavy

    return read(path, options)


def refused_images(options: ApplicationsOptions, dataset: DatasetOptions) -> Iterator[Problem]:
    """What published weights have against grey images."""
    if options.weights == "imagenet" and dataset.channels == 1:
        hint = 'set channels = 3, which shows grey images as such; or weights = "none" of [model]'
        yield Problem("ImageNet weights of Keras Applications take colours", hint, option="channels")


@hookimpl
def edgeopt_models() -> Iterator[ModelPlugin]:
    """The models."""
    yield ModelPlugin(
        "keras-applications",
        "Classification networks of Keras Applications, from scratch, pretrained, or from a local file.",
        ApplicationsOptions,
        build=build_application,
        fingerprint=fingerprint_application,
        refuses=refused_images,
        framework=KERAS,
        libraries=_LIBRARIES,
        requires=_TENSORFLOW,
        install=_INSTALL,
    )
    yield ModelPlugin(
        "keras-file",
        "A model of a .keras or .h5 file, or of a SavedModel folder, which cannot be trained.",
        KerasFileOptions,
        build=build_file,
        fingerprint=fingerprint_file,
        framework=KERAS,
        libraries=_LIBRARIES,
        requires=_TENSORFLOW,
        install=_INSTALL,
    )


@hookimpl
def edgeopt_passes() -> Iterator[PassPlugin]:
    """The passes."""
    yield PassPlugin(
        "keras-train",
        "Trains a Keras model and keeps the epoch that validates best.",
        KerasTrainOptions,
        apply=train,
        optimizes=False,
        framework=KERAS,
        libraries=_LIBRARIES,
        requires=_TENSORFLOW,
        install=_INSTALL,
    )


@hookimpl
def edgeopt_exporters() -> Iterator[ExporterPlugin]:
    """The exporters, those of Keras models first, then those of ONNX files."""
    yield ExporterPlugin(
        "keras-tflite",
        "A .tflite file of a Keras model, by TensorFlow's own converter, in four precisions.",
        ConvertedTfliteOptions,
        export=export_tflite,
        open=open_tflite,
        runtime="litert",
        suffix=".tflite",
        runtime_modules=("edgeopt_tflite.predictor",),
        on_device=OnDevice(("edgeopt_tflite.on_device",), ("ai-edge-litert",)),
        framework=KERAS,
        format="tflite",
        baseline=float32,
        accelerators=ACCELERATORS,
        libraries=_LIBRARIES,
        requires=_TFLITE,
        install=_INSTALL,
    )
    yield ExporterPlugin(
        "keras-onnx",
        "An .onnx file of a Keras model, float32, channels first.",
        KerasOnnxOptions,
        export=export_onnx,
        open=open_onnx,
        runtime="onnxruntime",
        suffix=".onnx",
        runtime_modules=("edgeopt_onnx.predictor",),
        on_device=OnDevice(("edgeopt_onnx.on_device", "edgeopt_onnx.session"), ("onnxruntime",)),
        framework=KERAS,
        format="onnx",
        libraries=_LIBRARIES,
        requires=(*_TENSORFLOW, "tf2onnx", "onnx", "onnxruntime"),
        install=_INSTALL,
    )
    yield ExporterPlugin(
        "keras-saved-model",
        "A SavedModel folder of a Keras model, as one zip file.",
        SavedModelOptions,
        export=export_saved_model,
        open=open_saved_model,
        runtime="tensorflow",
        suffix=".zip",
        runtime_modules=("edgeopt_tensorflow.saved_model",),
        framework=KERAS,
        format="saved-model",
        is_folder=True,
        libraries=_LIBRARIES,
        requires=_TENSORFLOW,
        install=_INSTALL,
    )
    yield ExporterPlugin(
        "onnx-tflite",
        "A .tflite file of an ONNX model, through onnx2tf and TensorFlow's converter.",
        ConvertedTfliteOptions,
        export=convert_onnx_to_tflite,
        open=open_tflite,
        runtime="litert",
        suffix=".tflite",
        runtime_modules=("edgeopt_tflite.predictor",),
        on_device=OnDevice(("edgeopt_tflite.on_device",), ("ai-edge-litert",)),
        framework=ONNX,
        format="tflite",
        baseline=float32,
        libraries=_LIBRARIES,
        requires=(*_ONNX2TF, "ai-edge-litert"),
        install=_INSTALL,
    )
    yield ExporterPlugin(
        "onnx-saved-model",
        "A SavedModel folder of an ONNX model, through onnx2tf, as one zip file.",
        SavedModelOptions,
        export=convert_onnx_to_saved_model,
        open=open_saved_model,
        runtime="tensorflow",
        suffix=".zip",
        runtime_modules=("edgeopt_tensorflow.saved_model",),
        framework=ONNX,
        format="saved-model",
        is_folder=True,
        libraries=_LIBRARIES,
        requires=_ONNX2TF,
        install=_INSTALL,
    )


@hookimpl
def edgeopt_readers() -> Iterator[ReaderPlugin]:
    """The readers."""
    yield ReaderPlugin(
        "keras",
        "A model of Keras, as model.save writes it; layers that are code are refused.",
        KerasReaderOptions,
        read=read_keras,
        suffixes=(".keras", ".h5"),
        framework=KERAS,
        scale_option="scale",
        libraries=_LIBRARIES,
        requires=_TENSORFLOW,
        install=_INSTALL,
    )
    yield ReaderPlugin(
        "saved-model",
        "The folder of a SavedModel with one image input; of several outputs all, or the one that is named.",
        KerasReaderOptions,
        read=read_keras,
        suffixes=("/",),
        framework=KERAS,
        scale_option="scale",
        libraries=_LIBRARIES,
        requires=_TENSORFLOW,
        install=_INSTALL,
    )
    yield ReaderPlugin(
        "onnx",
        "An ONNX model with one image input; of several outputs all, or the one that is named.",
        OnnxReaderOptions,
        read=read_onnx,
        suffixes=(".onnx",),
        framework=ONNX,
        libraries=_LIBRARIES,
        requires=("onnx", "onnxruntime"),
        install="edgeopt[onnx]",
    )
