"""Declares the model `torchvision` and the data sets `cifar10` and `fake`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from edgeopt.errors import CheckpointError, Problem, did_you_mean
from edgeopt.fingerprint import files_fingerprint
from edgeopt.hookspecs import hookimpl
from edgeopt.plugin import ModelPlugin
from edgeopt.settings import Options
from edgeopt.types import ModelState, TrainingData
from edgeopt_torchvision.names import WEIGHTS

_REQUIRES = ("torchvision",)
_INSTALL = "edgeopt[vision]"
_CHECKPOINT_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")


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

    @property
    def checkpoint(self) -> Path | None:
        """The file to start from, where `weights` is a path."""
        is_path = "/" in self.weights or "\\" in self.weights or self.weights.endswith(_CHECKPOINT_SUFFIXES)
        return Path(self.weights) if is_path else None


def _with_hint(problem: str, hint: str | None) -> str:
    return f"{problem}; {hint}" if hint else problem


def build_model(options: TorchvisionOptions, data: TrainingData) -> ModelState:
    """A torchvision network for the classes of `data`."""
    from edgeopt_torchvision.models import build  # torch and torchvision are heavy

    return build(options, data)


def fingerprint_model(options: TorchvisionOptions) -> str:
    """Name, size and time of the checkpoint; raises `CheckpointError` when it is not there."""
    if options.checkpoint is None:
        return ""
    if not options.checkpoint.is_file():
        raise CheckpointError(Problem(f"checkpoint {options.checkpoint} does not exist", "weights takes a file's path"))
    return files_fingerprint(options.checkpoint)


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
