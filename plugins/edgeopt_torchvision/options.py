"""The options of the model `torchvision`, of its data sets by name, of `cifar10` and of `fake`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from edgeopt.networks.weights_option import checkpoint_path
from edgeopt.plugins import DatasetOptions, Options, PosixPath, did_you_mean
from edgeopt_torchvision.catalogue import CATALOGUE, Entry
from edgeopt_torchvision.weights_names import WEIGHTS

CIFAR10_FOLDER = "cifar-10-batches-py"
CIFAR10_FILES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
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
        description="share of a batch in BatchNorm's running statistics; some architectures come with 0.01, too slow "
        "for short runs",
    )
    zero_init_residual: bool = Field(
        False,
        description="the last BatchNorm of each residual block starts at 0, so that a deep ResNet or ResNeXt without "
        "pretrained weights learns from its first epochs on (Goyal et al. 2017, arXiv:1706.02677)",
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


class NamedDatasetOptions(DatasetOptions):
    """Which data set of torchvision's, and where its files are."""

    name: str = Field(
        description="data set, as torchvision names its class", json_schema_extra={"enum": [*sorted(CATALOGUE)]}
    )
    root: PosixPath = Field(
        Path("data"), description="folder that torchvision is given: its files lie in it, or in a folder of it"
    )
    variant: str | None = Field(
        None,
        description="which of several: EMNIST's split, DTD's partition, Imagenette's size, FGVCAircraft's level of "
        "classes; balanced, 1, full and variant when left out",
    )
    download: bool = Field(False, description="download the files when they are not there, and take them for published")
    verify: bool = Field(
        True,
        description="compare files with their published checksums, where torchvision has these; false for files of "
        "your own in this format",
    )

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in CATALOGUE:
            alike = next((f"did you mean {each!r}?" for each in CATALOGUE if each.lower() == name.lower()), None)
            problem = f"torchvision has no data set {name!r} of one label an image"
            raise ValueError(_with_hint(problem, alike or did_you_mean(name, CATALOGUE)))
        return name

    @model_validator(mode="after")
    def _fits_the_data_set(self) -> NamedDatasetOptions:
        known = self.entry.variants
        if self.variant is not None and self.variant not in known:
            has = f"has {', '.join(known)}" if known else "has no variants"
            raise ValueError(f"{self.name} {has}, and variant is {self.variant!r}")
        if self.download and not self.entry.downloads:
            raise ValueError(f"torchvision does not download {self.name}: fetch it from its authors")
        if self.download and not self.verify:
            raise ValueError("download = true needs verify = true")
        return self

    @property
    def entry(self) -> Entry:
        """How the data set is found and opened."""
        return CATALOGUE[self.name]

    @property
    def chosen_variant(self) -> str:
        """The variant that is taken, "" where there are none."""
        return self.variant or next(iter(self.entry.variants), "")

    @property
    def needs(self) -> tuple[str, ...]:
        """Files and folders below `root` that it cannot do without."""
        return self.entry.paths(self.chosen_variant)


class FakeOptions(DatasetOptions):
    """How many images of noise."""

    images: int = Field(256, ge=16, le=100_000, description="how many images")
    class_count: int = Field(10, ge=2, le=1000, description="how many classes; an image says nothing about its own")
    drawn_size: int = Field(64, ge=8, le=512, description="edge of the images before they are resized, px")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of images and labels")


def _with_hint(problem: str, hint: str | None) -> str:
    return f"{problem}; {hint}" if hint else problem
