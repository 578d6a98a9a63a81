"""Declares the model `torchvision` and the data sets `torchvision`, `cifar10` and `fake`."""

from __future__ import annotations

from collections.abc import Iterator

from edgeopt.files import where_looked
from edgeopt.networks.weights_option import checkpoint_fingerprint
from edgeopt.plugins import (
    DataError,
    DatasetOptions,
    DatasetPlugin,
    ModelPlugin,
    ModelState,
    Problem,
    RawDataset,
    TrainingData,
    digest,
    files_fingerprint,
    hookimpl,
    sides_of,
    size_in_words,
    versions_of,
)
from edgeopt_torchvision.found import find_named
from edgeopt_torchvision.options import (
    CIFAR10_FOLDER,
    Cifar10Options,
    FakeOptions,
    NamedDatasetOptions,
    TorchvisionOptions,
)

_REQUIRES = ("torchvision",)
_INSTALL = "edgeopt[vision]"


def build_model(options: TorchvisionOptions, data: TrainingData) -> ModelState:
    """A torchvision network for the classes of `data`."""
    from edgeopt_torchvision.models import build  # torch and torchvision are heavy

    return build(options, data)


def fingerprint_model(options: TorchvisionOptions) -> str:
    """Name, size and time of the checkpoint; raises `CheckpointError` when it is not there."""
    return checkpoint_fingerprint(options.weights)


def load_cifar10(options: Cifar10Options) -> RawDataset:
    """CIFAR-10's 50,000 training and 10,000 test images, 32x32 px."""
    from edgeopt_torchvision.datasets import read_cifar10  # torch and torchvision are heavy

    return read_cifar10(options)


def fingerprint_cifar10(options: Cifar10Options) -> str:
    """A verified CIFAR-10 is always the same; files of one's own are told apart by size and time.

    Raises `DataError` when files are missing and may not be downloaded.
    """
    missing = [file for file in options.files if not file.is_file()]
    if missing and not options.download:
        raise DataError(
            Problem(
                f"CIFAR-10 is not there: {missing[0]} is missing{where_looked(missing[0])}",
                f"unpack cifar-10-python.tar.gz so that {options.root / CIFAR10_FOLDER}/ holds its files, "
                "or set download = true",
            )
        )
    return "cifar10" if options.verify else digest([files_fingerprint(file) for file in options.files])


def load_fake(options: FakeOptions) -> RawDataset:
    """Noise with random labels: enough to try a pipeline."""
    from edgeopt_torchvision.datasets import make_fake  # torch and torchvision are heavy

    return make_fake(options)


def fingerprint_fake(options: FakeOptions) -> str:  # noqa: ARG001 - the options are part of every key
    """The noise depends on its options and on torchvision."""
    return digest(["fake", versions_of(_REQUIRES)])


@hookimpl
def edgeopt_datasets() -> Iterator[DatasetPlugin]:
    """The data sets."""
    yield DatasetPlugin(
        "torchvision",
        "torchvision's data sets of one label an image, by name: MNIST, Flowers102, OxfordIIITPet, Food101 and others.",
        NamedDatasetOptions,
        find=find_named,
        requires=_REQUIRES,
        install=_INSTALL,
    )
    yield DatasetPlugin(
        "cifar10",
        "CIFAR-10: 60,000 images of 32x32 px in ten classes, with a test split.",
        Cifar10Options,
        load=load_cifar10,
        fingerprint=fingerprint_cifar10,
        requires=_REQUIRES,
        install=_INSTALL,
    )
    yield DatasetPlugin(
        "fake",
        "Images of noise with random labels, to try a recipe without data; there is nothing to learn.",
        FakeOptions,
        load=load_fake,
        fingerprint=fingerprint_fake,
        requires=_REQUIRES,
        install=_INSTALL,
    )


def refused_images(options: TorchvisionOptions, dataset: DatasetOptions) -> Iterator[Problem]:
    """What an architecture that was made for some sizes has against those of a data set."""
    step = int(options.arch.rpartition("_")[2]) if options.arch.startswith("vit_") else 0
    step = 224 if options.arch == "maxvit_t" else step
    size = size_in_words(dataset.image_size)
    if options.arch.startswith("vit_") and not isinstance(dataset.image_size, int):
        message = f"{options.arch} takes square images alone, and image_size is {size} px"
        yield Problem(message, f"write one number, a multiple of {step}", option="image_size")
    elif step and any(side % step for side in sides_of(dataset.image_size)):
        message = f"{options.arch} takes images whose sides are multiples of {step} px, and image_size is {size} px"
        yield Problem(message, f"set image_size to a multiple of {step}", option="image_size")


@hookimpl
def edgeopt_models() -> Iterator[ModelPlugin]:
    """The networks."""
    yield ModelPlugin(
        "torchvision",
        "Classification networks of torchvision, from scratch, pretrained, or from a local state dict.",
        TorchvisionOptions,
        build=build_model,
        fingerprint=fingerprint_model,
        refuses=refused_images,
        tasks=("classification", "multi-label"),
        requires=_REQUIRES,
        install=_INSTALL,
    )
