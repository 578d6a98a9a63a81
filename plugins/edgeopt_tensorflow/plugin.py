"""Declares models, training, exporters and readers of TensorFlow and Keras."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from edgeopt.errors import CheckpointError, Problem, did_you_mean
from edgeopt.exporting import damaged_explained
from edgeopt.fingerprint import files_fingerprint
from edgeopt.hookspecs import hookimpl
from edgeopt.plugin import (
    ExportContext,
    ExporterPlugin,
    ModelPlugin,
    Options,
    PassContext,
    PassPlugin,
    ReaderPlugin,
)
from edgeopt.settings import PosixPath
from edgeopt.types import ExportResult, ModelState, Predictor, TrainingData
from edgeopt.weights import require_checkpoint
from edgeopt_tensorflow.names import ARCHITECTURES

_KERAS = "keras"
_ONNX = "onnx"
_INSTALL = "edgeopt[tensorflow]"
_TENSORFLOW = ("tensorflow", "keras")
_TFLITE = (*_TENSORFLOW, "ai-edge-litert")
_ONNX2TF = ("tensorflow", "onnx2tf", "tf-keras", "onnx-graphsurgeon", "sng4onnx", "psutil", "onnx", "onnxruntime")

Positive = Annotated[float, Field(gt=0)]
Scale = Literal["recipe", "pixels", "unit", "symmetric"]
_SCALE = (
    'pictures that the file expects: "recipe", as the data set normalizes them; "pixels", 0..255; "unit", 0..1; '
    '"symmetric", -1..1'
)


# ---- options ------------------------------------------------------------------------------------------------------------


class ApplicationsOptions(Options):
    """Which network, and the weights that it starts from."""

    arch: str = Field(
        description="architecture, as Keras Applications names it", json_schema_extra={"enum": [*sorted(ARCHITECTURES)]}
    )
    weights: str = Field(
        "none",
        description='weights to start from: "none", "imagenet" (downloaded), or the path of a .weights.h5, .h5 or .keras file',
    )
    alpha: float = Field(
        1.0, gt=0.0, le=4.0, description="width of the network as a factor, where the architecture has one"
    )

    @field_validator("arch")
    @classmethod
    def _known(cls, arch: str) -> str:
        if arch not in ARCHITECTURES:
            hint = did_you_mean(arch, ARCHITECTURES)
            raise ValueError(f"Keras Applications has no architecture {arch!r}" + (f"; {hint}" if hint else ""))
        return arch

    @model_validator(mode="after")
    def _fits(self) -> ApplicationsOptions:
        if self.alpha != 1.0 and not ARCHITECTURES[self.arch].alpha:
            names = ", ".join(sorted(name for name, each in ARCHITECTURES.items() if each.alpha))
            raise ValueError(f"{self.arch} has no alpha; those that have one are {names}")
        if self.weights not in ("none", "imagenet") and not self.weights.endswith((".h5", ".keras")):
            raise ValueError(f'weights {self.weights!r} is not "none", "imagenet", or the path of a .h5 or .keras file')
        return self


class KerasFileOptions(Options):
    """A model of one's own."""

    path: PosixPath = Field(description="a .keras or .h5 file, or the folder of a SavedModel")
    scale: Scale = Field("recipe", description=_SCALE)
    replace_head: bool = Field(
        False, description="start with a fresh last layer, for the classes of the data set; not for a SavedModel"
    )


class KerasTrainOptions(Options):
    """Fine-tuning in Keras."""

    epochs: int = Field(10, ge=1, le=100_000, description="most passes over the training pictures")
    batch_size: int = Field(64, ge=2, le=65_536, description="pictures in a batch")
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="how gradients move the weights")
    learning_rate: float = Field(3e-3, gt=0.0, le=100.0, description="highest learning rate of the schedule")
    momentum: float = Field(0.9, ge=0.0, lt=1.0, description="momentum of sgd")
    weight_decay: float = Field(
        1e-2, ge=0.0, le=1.0, description="pull of the weights towards zero; biases and normalization are left out"
    )
    schedule: Literal["one-cycle", "cosine", "constant"] = Field(
        "one-cycle", description="how the learning rate changes while training"
    )
    label_smoothing: float = Field(
        0.0, ge=0.0, lt=1.0, description="share of each label that is spread over all classes"
    )
    freeze: Literal["none", "backbone"] = Field(
        "none", description='"backbone" trains the last layer alone, the classifier'
    )
    patience: int | None = Field(
        None, ge=1, description="stop after this many epochs without a better validation score; never when left out"
    )
    batch_norm_momentum: float | None = Field(
        0.1,
        gt=0.0,
        lt=1.0,
        description="weight of each batch in BatchNorm's running statistics (Keras counts the other way: 0.1 is its 0.9); "
        "none keeps the network's own, which is too small for short trainings in Keras Applications",
    )


class ConvertedTfliteOptions(Options):
    """A `.tflite` file that TensorFlow's own converter makes."""

    precision: Literal["float32", "float16", "dynamic-int8", "int8"] = Field(
        "float32",
        description='"float16": weights in half precision; "dynamic-int8": int8 weights, ranges taken at run time; "int8": all '
        "in int8, calibrated",
    )
    quantized_io: Literal["float32", "int8", "uint8"] = Field(
        "float32", description="type of the input and output of an int8 file; float32 keeps an app as it is"
    )
    calibration_pictures: int = Field(
        256, ge=1, le=4096, description="pictures of the calibration split that int8 takes its ranges from, at most"
    )

    @model_validator(mode="after")
    def _integers_inside(self) -> ConvertedTfliteOptions:
        if self.quantized_io != "float32" and self.precision != "int8":
            raise ValueError(f'quantized_io = "{self.quantized_io}" needs precision = "int8"')
        return self


class KerasOnnxOptions(Options):
    """An `.onnx` file of a Keras model."""

    opset: int = Field(18, ge=13, le=18, description="version of the ONNX operator set")


class SavedModelOptions(Options):
    """A SavedModel folder, zipped."""


class _ReaderOptions(Options):
    image_size: int | None = Field(
        None, ge=8, le=4096, description="edge of the square picture, px, where the file leaves it open"
    )
    mean: tuple[float, float, float] = Field(
        (0.485, 0.456, 0.406), description="per-channel mean that the model was trained with, of pixels scaled to 0..1"
    )
    std: tuple[Positive, Positive, Positive] = Field(
        (0.229, 0.224, 0.225), description="per-channel standard deviation of the same"
    )
    classes: tuple[str, ...] | None = Field(None, description='names of the outputs; "0", "1", … when left out')


class KerasReaderOptions(_ReaderOptions):
    """A `.keras` or `.h5` file, or a SavedModel folder."""

    scale: Scale = Field("recipe", description=_SCALE)


class OnnxReaderOptions(_ReaderOptions):
    """An `.onnx` file."""


# ---- callables: TensorFlow is heavy, and is imported by none of these names ------------------------------------------------


def build_application(options: ApplicationsOptions, data: TrainingData) -> ModelState:
    """A network of Keras Applications for the classes of `data`."""
    import numpy as np

    from edgeopt_tensorflow.applications import build

    return build(options, data, int(np.random.randint(2**31)))


def fingerprint_application(options: ApplicationsOptions) -> str:
    """Size and time of the file of weights; raises `CheckpointError` when it is not there."""
    if options.weights in ("none", "imagenet"):
        return ""
    path = Path(options.weights).expanduser()
    require_checkpoint(path)
    return files_fingerprint(path)


def build_file(options: KerasFileOptions, data: TrainingData) -> ModelState:
    """The model of a file for the classes of `data`."""
    import numpy as np

    from edgeopt_tensorflow.files import build
    from edgeopt_tensorflow.runtime import keras

    keras.utils.set_random_seed(int(np.random.randint(2**31)))
    return build(options, data)


def fingerprint_file(options: KerasFileOptions) -> str:
    """Names, sizes and times of the file or folder; raises `CheckpointError` when it is not there."""
    path = Path(options.path).expanduser()
    if not path.exists():
        raise CheckpointError(
            Problem(f"{path} does not exist", "give a .keras or .h5 file, or the folder of a SavedModel", option="path")
        )
    return files_fingerprint(path)


def train(state: ModelState, options: KerasTrainOptions, context: PassContext) -> ModelState:
    """Trains a copy of the network on the training split; see `edgeopt_tensorflow.train`."""
    from edgeopt_tensorflow.train import train_model

    return train_model(state, options, context)


def export_tflite(state: ModelState, options: ConvertedTfliteOptions, context: ExportContext) -> ExportResult:
    """Writes a `.tflite` file; see `edgeopt_tensorflow.tflite`."""
    from edgeopt_tensorflow.tflite import export_state

    return export_state(state, options, context)


def export_onnx(state: ModelState, options: KerasOnnxOptions, context: ExportContext) -> ExportResult:
    """Writes an `.onnx` file; see `edgeopt_tensorflow.keras_onnx`."""
    from edgeopt_tensorflow.keras_onnx import export_state

    return export_state(state, options.opset, context)


def export_saved_model(
    state: ModelState,
    options: SavedModelOptions,  # noqa: ARG001 - there are none
    context: ExportContext,
) -> ExportResult:
    """Writes a zipped SavedModel; see `edgeopt_tensorflow.saved_model`."""
    from edgeopt_tensorflow.saved_model import export_state

    return export_state(state, context)


def convert_onnx_to_tflite(state: ModelState, options: ConvertedTfliteOptions, context: ExportContext) -> ExportResult:
    """Writes an ONNX model as a `.tflite` file; see `edgeopt_tensorflow.onnx_convert`."""
    from edgeopt_tensorflow.onnx_convert import export_tflite

    return export_tflite(state, options, context)


def convert_onnx_to_saved_model(
    state: ModelState,
    options: SavedModelOptions,  # noqa: ARG001 - there are none
    context: ExportContext,
) -> ExportResult:
    """Writes an ONNX model as a zipped SavedModel; see `edgeopt_tensorflow.onnx_convert`."""
    from edgeopt_tensorflow.onnx_convert import export_saved_model

    return export_saved_model(state, context)


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


def open_saved_model(path: Path, threads: int) -> Predictor:  # noqa: ARG001 - TensorFlow takes them from the environment
    """Opens a zipped SavedModel in TensorFlow."""
    from edgeopt_tensorflow.saved_model import SavedModelPredictor

    return SavedModelPredictor(path)


def read_keras(path: Path, options: KerasReaderOptions) -> ModelState:
    """Opens a `.keras` or `.h5` file, or a SavedModel folder; see `edgeopt_tensorflow.files`."""
    from edgeopt_tensorflow.files import read

    return read(path, options)


def read_onnx(path: Path, options: OnnxReaderOptions) -> ModelState:
    """Opens an `.onnx` file; see `edgeopt_tensorflow.onnx_model`."""
    from edgeopt_tensorflow.onnx_model import read

    return read(path, options)


def float32(options: ConvertedTfliteOptions) -> ConvertedTfliteOptions:
    """The options of the float file."""
    return options.model_copy(update={"precision": "float32", "quantized_io": "float32"})


# ---- declarations -------------------------------------------------------------------------------------------------------


@hookimpl
def edgeopt_models() -> Iterator[ModelPlugin]:
    """The models."""
    yield ModelPlugin(
        "keras-applications",
        "Classification networks of Keras Applications, from scratch, pretrained, or from a local file.",
        ApplicationsOptions,
        build=build_application,
        fingerprint=fingerprint_application,
        framework=_KERAS,
        requires=_TENSORFLOW,
        install=_INSTALL,
    )
    yield ModelPlugin(
        "keras-file",
        "A model of a .keras or .h5 file, or of a SavedModel folder, which cannot be trained.",
        KerasFileOptions,
        build=build_file,
        fingerprint=fingerprint_file,
        framework=_KERAS,
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
        framework=_KERAS,
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
        framework=_KERAS,
        format="tflite",
        baseline=float32,
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
        framework=_KERAS,
        format="onnx",
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
        framework=_KERAS,
        format="saved-model",
        is_folder=True,
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
        framework=_ONNX,
        format="tflite",
        baseline=float32,
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
        framework=_ONNX,
        format="saved-model",
        is_folder=True,
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
        framework=_KERAS,
        requires=_TENSORFLOW,
        install=_INSTALL,
    )
    yield ReaderPlugin(
        "saved-model",
        "The folder of a SavedModel with one picture input and one output.",
        KerasReaderOptions,
        read=read_keras,
        suffixes=("/",),
        framework=_KERAS,
        requires=_TENSORFLOW,
        install=_INSTALL,
    )
    yield ReaderPlugin(
        "onnx",
        "An ONNX model with one picture input and one output.",
        OnnxReaderOptions,
        read=read_onnx,
        suffixes=(".onnx",),
        framework=_ONNX,
        requires=("onnx", "onnxruntime"),
        install="edgeopt[onnx]",
    )
