"""The options of the task `segmentation`, of its data sets and of its networks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from edgeopt.networks.weights_option import checkpoint_path
from edgeopt.plugins import DatasetOptions, Options, PosixPath, Problem, size_in_words, size_of, without_usual
from edgeopt_segmentation.parts.shares import IGNORED

_PUBLISHED = ("DEFAULT", "COCO_WITH_VOC_LABELS_V1")
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
        "none",
        description='weights to start from: "none", "DEFAULT" or "COCO_WITH_VOC_LABELS_V1" as torchvision has them for '
        "both of its networks, or the path of a state dict (.pth, .pt, .safetensors)",
    )
    width: int = Field(
        16, ge=4, le=256, description="channels of the U-Net's first level; each below has twice as many"
    )
    depth: int = Field(
        3,
        ge=1,
        le=5,
        description="levels of the U-Net below its first; sides of images are multiples of 2 to its power",
    )
    batch_norm_momentum: float = Field(
        0.1, gt=0.0, le=1.0, description="share of a batch in BatchNorm's running statistics; MobileNetV3 has 0.01"
    )

    @model_validator(mode="after")
    def _weights_are_there(self) -> SegmenterOptions:
        if self.weights == "none" or self.checkpoint is not None:
            return self
        if self.arch == "unet":
            raise ValueError(f'weights {self.weights!r} is not "none", nor the path of a checkpoint')
        if self.weights not in _PUBLISHED:
            known = " and ".join(f'"{name}"' for name in _PUBLISHED)
            raise ValueError(f"torchvision has {known} for {self.arch}, not {self.weights!r}")
        return self

    @model_validator(mode="after")
    def _shape_is_of_the_unet(self) -> SegmenterOptions:
        for name in ("width", "depth"):
            if self.arch != "unet" and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is of the U-Net, and {self.arch} has its own")
        return self

    @model_serializer(mode="wrap")
    def _as_before_depth(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_usual(self, write(self), ("depth",))

    @property
    def checkpoint(self) -> Path | None:
        """The file to start from."""
        return checkpoint_path(self.weights)

    def problem_of_size(self, height: int, width: int) -> Problem | None:
        """What is wrong with images of this size, px, and which ones fit; None where nothing is."""
        multiple = 2**self.depth
        if self.arch != "unet" or not (height % multiple or width % multiple):
            return None
        fit = [
            size_of(*(multiple * max(1, to_whole(side / multiple)) for side in (height, width)))
            for to_whole in (math.floor, math.ceil)
        ]
        written = dict.fromkeys(f"image_size = {size if isinstance(size, int) else list(size)}" for size in fit)
        return Problem(
            f"a U-Net of depth {self.depth} takes images whose sides are multiples of {multiple} px, "
            f"not {size_in_words(size_of(height, width))} px",
            f"set {' or '.join(written)}, or a smaller depth",
            option="image_size",
        )
