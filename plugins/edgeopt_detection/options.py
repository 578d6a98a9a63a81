"""The options of detection's task, data sets and models."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from edgeopt.networks.weights_option import checkpoint_path
from edgeopt.plugins import DatasetOptions, Options, PosixPath, Share
from edgeopt_images.options import TfdsSplitNames

Form = Literal["xyxy", "xywh", "cxcywh", "normalized-xyxy", "normalized-xywh", "normalized-cxcywh"]

_PUBLISHED = {
    ("ssdlite", "mobilenet_v3_large"): "ssdlite320_mobilenet_v3_large",
    ("retinanet", "resnet50"): "retinanet_resnet50_fpn",
    ("fcos", "resnet50"): "fcos_resnet50_fpn",
}
"""Networks with weights for COCO, as torchvision calls them."""


class DetectionOptions(Options):
    """What an app would show."""

    shown_score: Share = Field(
        0.4, description="score from which a box is shown, 0 to 1: by these boxes images are graded, told and compared"
    )


class ShapesBoxesOptions(DatasetOptions):
    """How many images are drawn, and from which seed."""

    images: int = Field(4000, ge=60, le=100_000, description="how many images, with up to six shapes each")
    drawn_size: int = Field(160, ge=48, le=640, description="edge of the images before they are resized, px")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of the drawing")


class CocoFile(Options):
    """One split in COCO's format."""

    annotations: PosixPath = Field(description="JSON file with images, annotations and categories")
    images: PosixPath = Field(description="folder that the names of images start from")


class CocoOptions(DatasetOptions):
    """Where each split's JSON file and images are."""

    train: CocoFile = Field(description="what is trained on, and what missing splits are drawn from")
    validation: CocoFile | None = Field(None, description="what is selected on; drawn from train when left out")
    test: CocoFile | None = Field(None, description="what is evaluated on; drawn from train when left out")


class YoloOptions(DatasetOptions):
    """Where the folder is."""

    path: PosixPath = Field(description="folder with data.yaml, which names the classes and the images of each split")


class VocOptions(DatasetOptions):
    """Where the folder is."""

    path: PosixPath = Field(
        description="folder with JPEGImages/ and Annotations/, or with an XML file beside each image, in train/, valid/"
        " and test/ or without",
    )


class HuggingFaceBoxesOptions(DatasetOptions):
    """Which local data set, and where in it images and boxes are."""

    source: PosixPath = Field(description="local folder, .parquet or .arrow file, in the form that the hub has")
    image_column: str = Field("image", description="column with the images")
    objects_column: str = Field("objects", description="column with bbox and category of each image's objects")
    box_form: Form = Field("xywh", description="what a box's four numbers are; shares of the image where normalized")


class TfdsBoxesOptions(DatasetOptions):
    """Which prepared data set, and what of its records are images, objects and splits."""

    path: PosixPath = Field(
        description="folder of one version of a data set that TFDS prepared, as tensorflow_datasets/voc/2007/5.0.0"
    )
    image_feature: str = Field("image", description="feature with the image")
    objects_feature: str = Field("objects", description="feature with a sequence of objects for each image")
    box_feature: str = Field("bbox", description="of an object: its box")
    label_feature: str = Field("label", description="of an object: its class")
    box_form: Form | None = Field(
        None,
        description="what a box's four numbers are, shares of the image where normalized; when left out, what the data "
        "set says, or TFDS's own: shares, y before x",
    )
    split_names: TfdsSplitNames = Field(
        default_factory=TfdsSplitNames, description="what the data set calls the splits"
    )
    window: int = Field(
        4096,
        ge=1,
        description="within how many images the training order is shuffled, besides the order of the files, where they "
        "do not fit in the cache",
    )


class DetectorOptions(Options):
    """Which network, on which backbone."""

    arch: Literal["ssdlite", "retinanet", "fcos"] = Field("ssdlite", description="torchvision's detector")
    backbone: Literal["mobilenet_v3_large", "mobilenet_v3_small", "resnet18", "resnet34", "resnet50"] = Field(
        "mobilenet_v3_large", description="what the detector stands on; ssdlite stands on mobilenet_v3_large alone"
    )
    weights: str = Field(
        "none",
        description='weights to start from: "none", "DEFAULT" or "COCO_V1" as torchvision has them for ssdlite and for '
        "retinanet and fcos on resnet50, or the path of a state dict (.pth, .pt, .safetensors)",
    )
    anchors: tuple[Share, Share] = Field(
        (0.2, 0.95),
        description="of ssdlite: sizes of the anchors on its first and on its last map, as shares of the image's edge; "
        "torchvision's own suit large objects, and weights that were trained want those that they were trained with",
    )
    batch_norm_momentum: float = Field(
        0.1,
        gt=0.0,
        le=1.0,
        description="share of a batch in BatchNorm's running statistics; SSDLite comes with 0.03, slow for short runs",
    )
    score_threshold: Share | None = Field(
        None, description="score above which a box is reported at all; torchvision's own of the detector when left out"
    )

    @model_validator(mode="after")
    def _fits(self) -> DetectorOptions:
        if self.arch == "ssdlite" and self.backbone != "mobilenet_v3_large":
            raise ValueError(
                'ssdlite stands on mobilenet_v3_large; set arch = "retinanet" or "fcos" for other backbones'
            )
        if self.anchors != DetectorOptions.model_fields["anchors"].default and self.arch != "ssdlite":
            raise ValueError(f"anchors are those of ssdlite, and {self.arch} has its own")
        if not 0 < self.anchors[0] < self.anchors[1]:
            raise ValueError(f"anchors go from the smaller to the larger, not from {self.anchors[0]:g} on")
        return self

    @model_validator(mode="after")
    def _weights_are_there(self) -> DetectorOptions:
        if self.weights == "none" or self.checkpoint is not None:
            return self
        if self.published is None or self.weights not in ("DEFAULT", "COCO_V1"):
            known = '"DEFAULT" and "COCO_V1"' if self.published else "none of its own"
            raise ValueError(f"torchvision has {known} for {self.arch} on {self.backbone}, not {self.weights!r}")
        return self

    @property
    def checkpoint(self) -> Path | None:
        """The file to start from."""
        return checkpoint_path(self.weights)

    @property
    def published(self) -> str | None:
        """What torchvision calls the network that it publishes weights of; None where it has none."""
        return _PUBLISHED.get((self.arch, self.backbone))
