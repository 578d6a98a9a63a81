"""Declares the model `torchvision` and the data sets `cifar10` and `fake`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from edgeopt.errors import DataError, Problem, did_you_mean
from edgeopt.fingerprint import digest, files_fingerprint, versions_of
from edgeopt.hookspecs import hookimpl
from edgeopt.plugin import DatasetOptions, DatasetPlugin, ModelPlugin
from edgeopt.settings import Options, PosixPath
from edgeopt.types import ModelState, RawDataset, TrainingData
from edgeopt.weights import checkpoint_fingerprint, checkpoint_path
from edgeopt_torchvision.names import CIFAR10_FILES, CIFAR10_FOLDER, WEIGHTS

_REQUIRES = ("torchvision",)
_INSTALL = "edgeopt[vision]"
_RESIDUAL = ("resnet", "resnext", "wide_resnet")


class TorchvisionOptions(Options):
    """Which network, and the weights that it starts from."""

    arch: str = Field(
        description="architecture, as torchvision names it", json_schema_extra={"enum": [*sorted(WEIGHTS)]}
    )
    weights: str = Field(
        "none",
        description='weights to start from: "none", "DEFAULT", another name that torchvision has for the architecture, '
        "or the path of a state dict (.pth, .pt, .ckpt, .safetensors)",
    )
    batch_norm_momentum: float = Field(
        0.1,
        gt=0.0,
        le=1.0,
        description="share of a batch in BatchNorm's running statistics; some architectures come with 0.01, too slow for "
        "short runs",
    )
    zero_init_residual: bool = Field(
        False,
        description="the last BatchNorm of each residual block starts at 0, so that a deep ResNet or ResNeXt without pretrained "
        "weights learns from its first epochs on (Goyal et al. 2017, arXiv:1706.02677)",
    )

    @field_validator("arch")
    @classmethod
    def _known(cls, arch: str) -> str:
        if arch not in WEIGHTS:
            raise ValueError(_with_hint(f"torchvision has no architecture {arch!r}", did_you_mean(arch, WEIGHTS)))
        return arch

    @model_validator(mode="after")
    def _weights_known(self) -> TorchvisionOptions:
        names = ("none", "DEFAULT", *WEIGHTS[self.arch])
        if self.weights not in names and self.checkpoint is None:
            problem = f"{self.arch} has no weights {self.weights!r}, which is not the path of a checkpoint either"
            raise ValueError(_with_hint(problem, did_you_mean(self.weights, names)))
        return self

    @model_validator(mode="after")
    def _zeros_have_an_effect(self) -> TorchvisionOptions:
        if self.zero_init_residual and not self.arch.startswith(_RESIDUAL):
            raise ValueError(f"{self.arch} has no zero_init_residual: leave it out; ResNet and ResNeXt have one")
        if self.zero_init_residual and self.weights != "none":
            raise ValueError("weights replace what zero_init_residual would set: leave one of them out")
        return self

    @property
    def checkpoint(self) -> Path | None:
        """The file to start from, where `weights` is a path."""
        return checkpoint_path(self.weights)


class Cifar10Options(DatasetOptions):
    """Where the files are."""

    root: PosixPath = Field(
        Path("data"), description=f"folder that holds {CIFAR10_FOLDER}/, or into which it is downloaded"
    )
    download: bool = Field(False, description="download the files (170 MB) when they are not there")
    verify: bool = Field(
        True, description="compare the files with their published checksums; false for files of your own in this format"
    )

    @model_validator(mode="after")
    def _download_verified(self) -> Cifar10Options:
        if self.download and not self.verify:
            raise ValueError("download = true needs verify = true")
        return self

    @property
    def files(self) -> tuple[Path, ...]:
        """The five training batches and the test batch."""
        return tuple(self.root / CIFAR10_FOLDER / name for name in CIFAR10_FILES)


class FakeOptions(DatasetOptions):
    """How many pictures of noise."""

    pictures: int = Field(256, ge=16, le=100_000, description="how many pictures")
    class_count: int = Field(10, ge=2, le=1000, description="how many classes; a picture says nothing about its own")
    picture_size: int = Field(64, ge=8, le=512, description="edge of the pictures before they are resized, px")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of pictures and labels")


def _with_hint(problem: str, hint: str | None) -> str:
    return f"{problem}; {hint}" if hint else problem


def build_model(options: TorchvisionOptions, data: TrainingData) -> ModelState:
    """A torchvision network for the classes of `data`."""
    from edgeopt_torchvision.models import build  # torch and torchvision are heavy

    return build(options, data)


def fingerprint_model(options: TorchvisionOptions) -> str:
    """Name, size and time of the checkpoint; raises `CheckpointError` when it is not there."""
    return checkpoint_fingerprint(options.weights)


def load_cifar10(options: Cifar10Options) -> RawDataset:
    """CIFAR-10's 50,000 training and 10,000 test pictures, 32x32 px."""
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
                f"CIFAR-10 is not there: {missing[0]} is missing",
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
        "cifar10",
        "CIFAR-10: 60,000 pictures of 32x32 px in ten classes, with a test split.",
        Cifar10Options,
        load=load_cifar10,
        fingerprint=fingerprint_cifar10,
        requires=_REQUIRES,
        install=_INSTALL,
    )
    yield DatasetPlugin(
        "fake",
        "Pictures of noise with random labels, to try a recipe without data; there is nothing to learn.",
        FakeOptions,
        load=load_fake,
        fingerprint=fingerprint_fake,
        requires=_REQUIRES,
        install=_INSTALL,
    )


@hookimpl
def edgeopt_models() -> Iterator[ModelPlugin]:
    """The networks."""
    yield ModelPlugin(
        "torchvision",
        "Classification networks of torchvision, from scratch, pretrained, or from a local state dict.",
        TorchvisionOptions,
        build=build_model,
        fingerprint=fingerprint_model,
        requires=_REQUIRES,
        install=_INSTALL,
    )
