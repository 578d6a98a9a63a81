"""A network that answers with a direction."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from torch import nn

from edgeopt.networks.heads import float_state
from edgeopt.plugins import ModelState, TrainingData


def build_network(width: int, data: TrainingData) -> ModelState:
    """Three convolutions, the mean over all places, and cosine and sine of twice the angle."""
    channels = (data.preprocessing.channels, width, 2 * width, 4 * width)
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], 2))
    return replace(float_state(network, data, {"width": width}), output_names=("direction",))
