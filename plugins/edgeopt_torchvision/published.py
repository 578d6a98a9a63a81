"""The weights that torchvision publishes, from its cache or the network."""

from __future__ import annotations

import urllib.error
from typing import Any

import torch

from edgeopt.networks.checkpoints import StateDict
from edgeopt.plugins import CheckpointError, Problem


def published_state(arch: str, weights: Any) -> StateDict:
    """The tensors of one of torchvision's weights, such as `ResNet18_Weights.IMAGENET1K_V1`, of the network `arch`.

    Raises `CheckpointError` where they are neither in torch's cache nor can be downloaded.
    """
    try:
        return StateDict.of(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        file = weights.url.rpartition("/")[2]
        raise CheckpointError(
            Problem(
                f"weights {weights.name} of {arch} cannot be downloaded: {getattr(error, 'reason', error)}",
                f'put {file} on this machine and name it: weights = "path/to/{file}"; '
                f"or put it into {torch.hub.get_dir()}/checkpoints",
            )
        ) from error
