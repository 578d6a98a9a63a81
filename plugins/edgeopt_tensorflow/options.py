"""The options of the models, training, exporters and readers of TensorFlow and Keras; light."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from edgeopt.plugins import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ChannelDeviations,
    ChannelMeans,
    Options,
    PosixPath,
    SizeOption,
    did_you_mean,
)
from edgeopt_tensorflow.architectures import ARCHITECTURES

KERAS = "keras"
"""The framework of states that hold a Keras network or a SavedModel."""

ONNX = "onnx"
"""The framework of states that hold an ONNX file."""

Precision: TypeAlias = Literal["float32", "float16", "dynamic-int8", "int8"]
"""What a `.tflite` file that TensorFlow's converter makes can compute in."""

Scale: TypeAlias = Literal["recipe", "pixels", "unit", "symmetric"]
"""The scale of the images that a model file expects."""

_SCALE = (
    'images that the file expects: "recipe", as the data set normalizes them; "pixels", 0..255; "unit", 0..1; '
    '"symmetric", -1..1'
)


class ApplicationsOptions(Options):
    """Which network, and the weights that it starts from."""

    arch: str = Field(
        description="architecture, as Keras Applications names it", json_schema_extra={"enum": [*sorted(ARCHITECTURES)]}
    )
    weights: str = Field(
        "none",
        description='weights to start from: "none", "imagenet" (downloaded), or the path of a .weights.h5, .h5 or '
        ".keras file",
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

    path: PosixPath = Field(description="a .keras or .h5 file, or the folder of a SavedModel", examples=["model.keras"])
    scale: Scale = Field("recipe", description=_SCALE)
    replace_head: bool = Field(
        False, description="start with a fresh last layer, for the classes of the data set; not for a SavedModel"
    )


class KerasTrainOptions(Options):
    """Fine-tuning in Keras."""

    epochs: int = Field(10, ge=1, le=100_000, description="most passes over the training images")
    batch_size: int = Field(64, ge=2, le=65_536, description="images in a batch")
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
        description="weight of each batch in BatchNorm's running statistics (Keras counts the other way: 0.1 is its "
        "0.9); none keeps the network's own, which is too small for short trainings in Keras Applications",
    )

    @property
    def settles(self) -> bool:
        """Whether the learning rate comes down to the last epoch, and no patience ends the training before."""
        return self.schedule in ("one-cycle", "cosine") and self.patience is None


class ConvertedTfliteOptions(Options):
    """A `.tflite` file that TensorFlow's own converter makes."""

    precision: Precision = Field(
        "float32",
        description='"float16": weights in half precision; "dynamic-int8": int8 weights, ranges taken at run time; '
        '"int8": all in int8, calibrated',
    )
    quantized_io: Literal["float32", "int8", "uint8"] = Field(
        "float32", description="type of the input and output of an int8 file; float32 keeps an app as it is"
    )
    calibration_images: int = Field(
        256, ge=1, le=4096, description="images of the calibration split that int8 takes its ranges from, at most"
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
    image_size: SizeOption | None = Field(
        None,
        description="size of images, px, where the file leaves it open: the edge of a square, or [height, width]",
        examples=[224],
    )
    mean: ChannelMeans = Field(
        IMAGENET_MEAN, description="per-channel mean that the model was trained with, of pixels scaled to 0..1"
    )
    std: ChannelDeviations = Field(IMAGENET_STD, description="per-channel standard deviation of the same")
    classes: tuple[str, ...] | None = Field(None, description='names of the outputs; "0", "1", … when left out')


class KerasReaderOptions(_ReaderOptions):
    """A `.keras` or `.h5` file, or a SavedModel folder."""

    output: str | None = Field(
        None,
        description="the only output that is kept, by its key in what the network returns, or its layer; all when left "
        "out",
        examples=["boxes"],
    )
    scale: Scale = Field("recipe", description=_SCALE)


class OnnxReaderOptions(_ReaderOptions):
    """An `.onnx` file."""

    output: str | None = Field(
        None,
        description="the only output that is kept, by its name in the file; all when left out",
        examples=["logits"],
    )
