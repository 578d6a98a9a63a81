"""Declares the model `timm`."""

from __future__ import annotations

from collections.abc import Iterator

from edgeopt.networks.weights_option import checkpoint_fingerprint
from edgeopt.plugins import ModelPlugin, ModelState, TrainingData, hookimpl
from edgeopt_timm.options import TimmOptions

#: Packages of other plugins that the work of this one uses, and that those use.
_LIBRARIES = ("edgeopt_torchvision",)


def build_model(options: TimmOptions, data: TrainingData) -> ModelState:
    """A timm network for the classes of `data`."""
    from edgeopt_timm.models import build  # torch and timm are heavy

    return build(options, data)


def fingerprint_model(options: TimmOptions) -> str:
    """Size and time of the checkpoint; raises `CheckpointError` when it is not there."""
    return checkpoint_fingerprint(options.weights)


@hookimpl
def edgeopt_models() -> Iterator[ModelPlugin]:
    """The networks."""
    yield ModelPlugin(
        "timm",
        "Networks of timm (PyTorch Image Models), from scratch, pretrained, or from a local state dict.",
        TimmOptions,
        build=build_model,
        fingerprint=fingerprint_model,
        libraries=_LIBRARIES,
        tasks=("classification", "multi-label"),
        requires=("timm", "torchvision"),
        install="edgeopt[timm]",
    )
