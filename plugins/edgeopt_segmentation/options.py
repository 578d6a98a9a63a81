"""The options of the task `segmentation`, of its data sets and of its networks."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from edgeopt.networks.weights_option import checkpoint_path
from edgeopt.plugins import DatasetOptions, Options, PosixPath

IGNORED = 255
"""What a mask has where nobody says what is there."""
MOST_CLASSES = 255  # a mask has a byte for each place, and one value of it says nothing


class SegmentationOptions(Options):
    """How a network learns masks, and when one is good enough."""

    dice: float = Field(
        0.5,
        ge=0.0,
        le=1.0,
        description="share of Dice in the loss, which counts small things as much as large ones; the rest is "
        "cross-entropy",
    )
    right_from: float = Field(
        0.5, gt=0.0, le=1.0, description="from which mean IoU of its classes on an image counts as right"
    )


class MaskFolderOptions(DatasetOptions):
    """Where images and masks are, and what the values of masks stand for."""

    path: PosixPath = Field(
        description="folder with a folder of images and one of masks, or with train/, val/ and test/ that hold those"
    )
    images: str = Field("images", min_length=1, description="name of the folders of images")
    masks: str = Field(
        "masks", min_length=1, description="name of the folders of masks: files named as their images, grey or palette"
    )
    class_names: tuple[str, ...] = Field(
        min_length=2, max_length=MOST_CLASSES, description="names of the classes", examples=[("background", "cat")]
    )
    values: tuple[int, ...] | None = Field(
        None, description="the value of each class in the masks; 0, 1, 2 and so on when left out"
    )
    ignored: int | None = Field(
        IGNORED, ge=0, le=255, description="the value of places that nobody has judged; they count neither way"
    )

    @model_validator(mode="after")
    def _values_are_apart(self) -> MaskFolderOptions:
        values = self.class_values
        if len(values) != len(self.class_names):
            raise ValueError(f"values names {len(values)} values, and class_names {len(self.class_names)} classes")
        if not all(0 <= value <= 255 for value in values):
            raise ValueError("a mask has values from 0 to 255")
        taken = [*values, *([] if self.ignored is None else [self.ignored])]
        if twice := sorted({value for value in taken if taken.count(value) > 1}):
            raise ValueError(f"value {twice[0]} stands for two things: see values and ignored")
        return self

    @property
    def class_values(self) -> tuple[int, ...]:
        """The value of each class."""
        return tuple(range(len(self.class_names))) if self.values is None else self.values


class ShapesMasksOptions(DatasetOptions):
    """How many images are drawn, and from which seed."""

    images: int = Field(1200, ge=12, le=100_000, description="how many images")
    drawn_size: int = Field(96, ge=32, le=512, description="edge of the images before they are resized, px")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of the drawing")


class SegmenterOptions(Options):
    """Which network, and the weights that it starts from."""

    arch: Literal["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", "unet"] = Field(
        description="network: two of torchvision's, or a small U-Net", examples=["lraspp_mobilenet_v3_large"]
    )
    weights: str = Field(
        "none", description='weights to start from: "none", or the path of a state dict (.pth, .pt, .safetensors)'
    )
    width: int = Field(
        16, ge=4, le=256, description="channels of the U-Net's first level; each below has twice as many"
    )
    batch_norm_momentum: float = Field(
        0.1, gt=0.0, le=1.0, description="share of a batch in BatchNorm's running statistics; MobileNetV3 has 0.01"
    )

    @model_validator(mode="after")
    def _weights_are_a_file(self) -> SegmenterOptions:
        if self.weights != "none" and self.checkpoint is None:
            raise ValueError(f'weights {self.weights!r} is not "none", nor the path of a checkpoint')
        return self

    @property
    def checkpoint(self) -> Path | None:
        """The file to start from."""
        return checkpoint_path(self.weights)
