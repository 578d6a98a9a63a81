"""Declares the task `segmentation`, its data sets `mask-folder` and `shapes-masks`, and its networks `segmenter`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.plugins import (
    DatasetOptions,
    DatasetPlugin,
    ModelPlugin,
    Problem,
    RawDataset,
    TaskPlugin,
    digest,
    hookimpl,
    sides_of,
    versions_of,
)
from edgeopt_segmentation.options import (
    MaskFolderOptions,
    SegmentationOptions,
    SegmenterOptions,
    ShapesMasksOptions,
)
from edgeopt_segmentation.task import Segmentation

if TYPE_CHECKING:
    from edgeopt.plugins import FoundData, ModelState, TrainingData

_TASK = "segmentation"
_LIBRARIES = ("edgeopt_torchvision",)
_PARTS = Path(__file__).with_name("parts")


def make_task(options: SegmentationOptions) -> Segmentation:
    """The task with its options."""
    return Segmentation(options.dice, options.right_from)


def find_masks(options: MaskFolderOptions) -> FoundData:
    """Looks which images have a mask."""
    from edgeopt_segmentation.found import find_masks as find  # nobody else needs it

    return find(options)


def load_shapes(options: ShapesMasksOptions) -> RawDataset:
    """Shapes with their masks."""
    from edgeopt_segmentation.shapes import make_shapes  # NumPy is heavy

    return make_shapes(options.images, options.drawn_size, options.seed)


def fingerprint_shapes(options: ShapesMasksOptions) -> str:  # noqa: ARG001 - the options are part of every key
    """The images follow from the options, and from how numpy draws."""
    return digest(["shapes-masks", versions_of(["numpy"])])


def build(options: SegmenterOptions, data: TrainingData) -> ModelState:
    """A network for the classes of the data set."""
    from edgeopt_segmentation.networks.build import build as build_network  # torch is heavy

    return build_network(options, data)


def refused_images(options: SegmenterOptions, dataset: DatasetOptions) -> Iterator[Problem]:
    """Images of a size that the network does not take."""
    problem = options.problem_of_size(*sides_of(dataset.image_size))
    if problem is not None:
        yield problem


def fingerprint_weights(options: SegmenterOptions) -> str:
    """Changes with the file that a network starts from."""
    from edgeopt.networks.weights_option import checkpoint_fingerprint  # a look at the disk

    return checkpoint_fingerprint(options.weights)


@hookimpl
def edgeopt_tasks() -> Iterator[TaskPlugin]:
    """The task."""
    yield TaskPlugin(
        _TASK,
        "A class for each place of an image: masks.",
        SegmentationOptions,
        make=make_task,
        kotlin_files=(_PARTS / "MaskAnswering.kt",),
        line_templates=tuple(_PARTS / f"masks.{language}.j2" for language in ("kotlin", "swift", "cpp", "python")),
        libraries=_LIBRARIES,
        page_files=(_PARTS / "masks.js",),
        device_modules=("edgeopt_segmentation.parts.shares",),
    )


@hookimpl
def edgeopt_datasets() -> Iterator[DatasetPlugin]:
    """The data sets."""
    yield DatasetPlugin(
        "mask-folder",
        "Images in one folder and masks of the same names in another.",
        MaskFolderOptions,
        find=find_masks,
        tasks=(_TASK,),
        libraries=_LIBRARIES,
    )
    yield DatasetPlugin(
        "shapes-masks",
        "Shapes on textured ground with their masks, generated from a seed; needs no network.",
        ShapesMasksOptions,
        load=load_shapes,
        fingerprint=fingerprint_shapes,
        tasks=(_TASK,),
        libraries=_LIBRARIES,
    )


@hookimpl
def edgeopt_models() -> Iterator[ModelPlugin]:
    """The networks."""
    yield ModelPlugin(
        "segmenter",
        "LRASPP and DeepLabV3 with MobileNetV3 from torchvision, and a small U-Net.",
        SegmenterOptions,
        build=build,
        fingerprint=fingerprint_weights,
        tasks=(_TASK,),
        libraries=_LIBRARIES,
        requires=("torch", "torchvision"),
        refuses=refused_images,
        install="edgeopt[vision]",
    )
