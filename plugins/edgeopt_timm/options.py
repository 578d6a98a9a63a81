"""The options of the model `timm`."""

from __future__ import annotations

from pydantic import Field, field_validator

from edgeopt.networks.weights_option import checkpoint_path
from edgeopt.plugins import Options, did_you_mean

_NAMES = ("none", "pretrained")


class TimmOptions(Options):
    """Which network, and the weights that it starts from."""

    arch: str = Field(
        min_length=1,
        description="architecture, as timm.list_models() names it; a tag of pretrained weights may follow a dot",
    )
    weights: str = Field(
        "none",
        description='weights to start from: "none", "pretrained" (downloaded by timm), or the path of a state dict '
        "(.pth, .pt, .ckpt, .safetensors)",
    )
    batch_norm_momentum: float = Field(
        0.1,
        gt=0.0,
        le=1.0,
        description="share of a batch in BatchNorm's running statistics; some architectures come with 0.01, too slow "
        "for short runs",
    )

    @field_validator("weights")
    @classmethod
    def _known(cls, weights: str) -> str:
        if weights not in _NAMES and checkpoint_path(weights) is None:
            hint = did_you_mean(weights, _NAMES)
            raise ValueError(f'weights are "none", "pretrained" or the path of a checkpoint, not {weights!r}; {hint}')
        return weights
