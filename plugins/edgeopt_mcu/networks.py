"""Small networks for microcontrollers, of one channel or three: convolutions, ReLU, an average and a linear layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import nn

from edgeopt.networks.heads import float_state, require_input
from edgeopt.plugins import ModelState, TrainingData

if TYPE_CHECKING:
    from edgeopt_mcu.options import McuOptions

#: Output channels and stride of each depthwise-separable layer.
Plan = Sequence[tuple[int, int]]
PLANS: Mapping[str, Plan] = {
    "ds_cnn": ((64, 1),) * 4,
    "mobilenet_v1_025": (
        *((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2)),
        *((128, 1),) * 5,
        *((256, 2), (256, 1)),
    ),
    "person_detect": (
        *((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2)),
        *((128, 1),) * 2,
        *((128, 2), (128, 1)),
    ),
}
"""The layers of each network behind its first convolution."""


def build(options: McuOptions, data: TrainingData) -> ModelState:
    """A float network for the classes of `data`, drawn from torch's seeded generator.

    Raises `RecipeError` for images that are too small for it.
    """
    channels, classes = data.preprocessing.channels, len(data.classes)
    model = _ARCHITECTURES[options.arch](channels, classes)
    require_input(model, options.arch, data.preprocessing.image_size, classes, channels=channels)
    return float_state(model, data, {"arch": options.arch})


def ds_cnn(channels: int, classes: int) -> nn.Module:
    """DS-CNN, for spectrograms of 49 by 10: a wide convolution and four depthwise-separable layers of 64 channels.

    Source: Zhang, Suda, Lai and Chandra, "Hello Edge: Keyword Spotting on Microcontrollers", arXiv:1711.07128; the
    small one of the paper, which MLPerf Tiny has for its keyword spotting.
    """
    stem = _convolution(channels, 64, (10, 4), stride=2, padding=(5, 1))
    return _network(stem, 64, PLANS["ds_cnn"], classes)


def mobilenet_v1_025(channels: int, classes: int) -> nn.Module:
    """MobileNetV1 with a quarter of the channels: 13 depthwise-separable layers, 0.2 million weights.

    Source: Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications",
    arXiv:1704.04861; with this width it is the network of Chowdhery et al., "Visual Wake Words Dataset",
    arXiv:1906.05721, and of MLPerf Tiny.
    """
    return _network(_convolution(channels, 8, (3, 3), stride=2, padding=(1, 1)), 8, PLANS["mobilenet_v1_025"], classes)


def person_detect(channels: int, classes: int) -> nn.Module:
    """A network like the person detector of TensorFlow Lite Micro's examples, in 100 KB instead of 250.

    That is MobileNetV1 of a quarter of the channels for one channel of 96 px (sources as of `mobilenet_v1_025`); here
    three of its equal layers are left out, and the last ones do not double their channels.
    """
    return _network(_convolution(channels, 8, (3, 3), stride=2, padding=(1, 1)), 8, PLANS["person_detect"], classes)


_ARCHITECTURES = {"ds_cnn": ds_cnn, "mobilenet_v1_025": mobilenet_v1_025, "person_detect": person_detect}


def _network(stem: nn.Module, width: int, plan: Plan, classes: int) -> nn.Module:
    layers = [stem]
    for given, (made, stride) in zip((width, *(made for made, _ in plan)), plan, strict=False):
        layers += [
            _convolution(given, given, (3, 3), stride=stride, padding=(1, 1), groups=given),
            _convolution(given, made, (1, 1)),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(plan[-1][0], classes))


def _convolution(
    given: int,
    made: int,
    kernel: tuple[int, int],
    *,
    stride: int = 1,
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
) -> nn.Module:
    """A convolution with BatchNorm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(given, made, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(made),
        nn.ReLU(),
    )
