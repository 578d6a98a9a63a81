"""The options of detection's task, data sets and models."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from edgeopt.plugins import DatasetOptions, Options, PosixPath, Share

Form = Literal["xyxy", "xywh", "cxcywh", "normalized-xyxy", "normalized-xywh", "normalized-cxcywh"]


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


class DetectorOptions(Options):
    """Which network, on which backbone."""

    arch: Literal["ssdlite", "retinanet", "fcos"] = Field("ssdlite", description="torchvision's detector")
    backbone: Literal["mobilenet_v3_large", "mobilenet_v3_small", "resnet18", "resnet34", "resnet50"] = Field(
        "mobilenet_v3_large", description="what the detector stands on; ssdlite stands on mobilenet_v3_large alone"
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
        return self
