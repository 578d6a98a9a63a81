"""Declares the task `detection`, data sets with boxes, and torchvision's detectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeopt.plugins import (
    DatasetPlugin,
    ModelPlugin,
    ModelState,
    RawDataset,
    Task,
    TaskPlugin,
    TrainingData,
    digest,
    hookimpl,
    versions_of,
)
from edgeopt_detection.found import find_coco, find_hugging_face, find_tfds_boxes, find_voc, find_yolo
from edgeopt_detection.options import (
    CocoOptions,
    DetectionOptions,
    DetectorOptions,
    HuggingFaceBoxesOptions,
    ShapesBoxesOptions,
    TfdsBoxesOptions,
    VocOptions,
    YoloOptions,
)

_TASK = "detection"
_INSTALL = "edgeopt[detection]"
_LIBRARIES = ("edgeopt_torchvision", "edgeopt_images")
_PARTS = Path(__file__).with_name("parts")
_BOX_DECODER = Path(__file__).parent / "decoding" / "BoxDecoder.kt"
_DECODING = Path(__file__).parent / "decoding" / "decoding.js"


def make_task(options: DetectionOptions) -> Task:
    """The task; how raw heads become boxes is said by the model."""
    from edgeopt_detection.task import Detection  # nobody else needs it

    return Detection(shown_score=options.shown_score)


def load_shapes(options: ShapesBoxesOptions) -> RawDataset:
    """Five shapes, many an image."""
    from edgeopt_detection.shapes import make_shape_boxes  # NumPy is heavy

    return make_shape_boxes(options.images, options.drawn_size, options.seed)


def fingerprint_shapes(options: ShapesBoxesOptions) -> str:  # noqa: ARG001 - the options are part of every key
    """The images follow from the options, and from how NumPy draws."""
    return digest(["shapes-boxes", versions_of(["numpy"])])


def build_detector(options: DetectorOptions, data: TrainingData) -> ModelState:
    """A detector of torchvision without its transform and NMS, for the classes of `data`."""
    from edgeopt_detection.detector import build  # torch and torchvision are heavy

    return build(options, data)


def fingerprint_detector(options: DetectorOptions) -> str:
    """Changes with the file that a network starts from; raises `CheckpointError` when it is not there."""
    from edgeopt.networks.weights_option import checkpoint_fingerprint  # a look at the disk

    return checkpoint_fingerprint(options.weights) or "from scratch"


@hookimpl
def edgeopt_tasks() -> Iterator[TaskPlugin]:
    """Boxes."""
    yield TaskPlugin(
        _TASK,
        "Boxes of objects and their classes: torchvision's losses, COCO's mean average precision.",
        DetectionOptions,
        make=make_task,
        kotlin_files=(_PARTS / "BoxAnswering.kt", _BOX_DECODER),
        line_templates=tuple(_PARTS / f"boxes.{language}.j2" for language in ("kotlin", "swift", "cpp", "python")),
        libraries=_LIBRARIES,
        page_files=(_PARTS / "boxes.js", _DECODING),
        device_modules=("edgeopt_detection.parts.objects", "edgeopt_detection.parts.box_decoder"),
    )


@hookimpl
def edgeopt_datasets() -> Iterator[DatasetPlugin]:
    """Data sets with boxes."""
    yield DatasetPlugin(
        "shapes-boxes",
        "Up to six shapes an image with their boxes, generated from a seed; needs no network.",
        ShapesBoxesOptions,
        load=load_shapes,
        fingerprint=fingerprint_shapes,
        tasks=(_TASK,),
        libraries=_LIBRARIES,
    )
    yield DatasetPlugin(
        "coco",
        "Images with boxes in COCO's JSON files, of any size.",
        CocoOptions,
        find=find_coco,
        tasks=(_TASK,),
        libraries=_LIBRARIES,
    )
    yield DatasetPlugin(
        "yolo",
        "A folder in YOLO's format: data.yaml, images, and a text file of boxes for each.",
        YoloOptions,
        find=find_yolo,
        requires=("pyyaml",),
        install=_INSTALL,
        tasks=(_TASK,),
        libraries=_LIBRARIES,
    )
    yield DatasetPlugin(
        "pascal-voc",
        "A folder in Pascal VOC's format: an XML file of boxes for each image.",
        VocOptions,
        find=find_voc,
        tasks=(_TASK,),
        libraries=_LIBRARIES,
    )
    yield DatasetPlugin(
        "hugging-face-boxes",
        "Local data sets in the hub's form, with a column of objects: bbox and category.",
        HuggingFaceBoxesOptions,
        find=find_hugging_face,
        requires=("datasets",),
        install="edgeopt[hugging-face]",
        tasks=(_TASK,),
        libraries=_LIBRARIES,
    )
    yield DatasetPlugin(
        "tfds-boxes",
        "Images with boxes that TensorFlow Datasets prepared on this machine, as TFRecord or array_record files.",
        TfdsBoxesOptions,
        find=find_tfds_boxes,
        requires=("tensorflow_datasets",),
        install="edgeopt[tfds]",
        tasks=(_TASK,),
        libraries=_LIBRARIES,
    )


@hookimpl
def edgeopt_models() -> Iterator[ModelPlugin]:
    """Detectors."""
    yield ModelPlugin(
        "torchvision-detector",
        "SSDLite, RetinaNet and FCOS of torchvision, with its weights or without; files end at raw heads.",
        DetectorOptions,
        build=build_detector,
        fingerprint=fingerprint_detector,
        requires=("torchvision",),
        install=_INSTALL,
        tasks=(_TASK,),
        libraries=_LIBRARIES,
    )
