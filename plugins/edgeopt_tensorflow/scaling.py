"""From an image as the recipe normalizes it to the scale that a network expects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeopt.plugins import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from edgeopt_tensorflow.architectures import Expects
from edgeopt_tensorflow.options import Scale

# of pixels, red first: subtracted in the training of VGG's and ResNet's published weights
_CAFFE_MEAN = (123.68, 116.779, 103.939)
_NOTHING = 1e-6


@dataclass(frozen=True)
class Rescaling:
    """Per channel: expected = given * scale + offset."""

    scale: tuple[float, ...]
    offset: tuple[float, ...]

    @property
    def is_identity(self) -> bool:
        """Whether it leaves images as they are."""
        return all(abs(scale - 1) < _NOTHING for scale in self.scale) and all(
            abs(offset) < _NOTHING for offset in self.offset
        )


def rescaling(preprocessing: Preprocessing, expected: Scale | Expects) -> Rescaling:
    """What turns images that `preprocessing` normalized into the scale that a network expects."""
    if expected == "recipe":
        return Rescaling((1.0,) * preprocessing.channels, (0.0,) * preprocessing.channels)
    given_scale, given_offset = (np.array(values) for values in preprocessing.scale_and_offset())
    scale, offset = (np.array(values[: preprocessing.channels]) for values in _of_pixels(expected))
    factor = scale / given_scale
    return Rescaling(tuple(map(float, factor)), tuple(map(float, offset - factor * given_offset)))


def _of_pixels(expected: Scale | Expects) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Scale and offset, per channel, that turn pixels 0..255 into what is expected."""
    match expected:
        case "pixels":
            return (1.0,) * 3, (0.0,) * 3
        case "unit":
            return (1 / 255,) * 3, (0.0,) * 3
        case "symmetric":
            return (1 / 127.5,) * 3, (-1.0,) * 3
        case "caffe":
            return (1.0,) * 3, tuple(-mean for mean in _CAFFE_MEAN)
        case _:
            size = Preprocessing(1, 1, 1, IMAGENET_MEAN, IMAGENET_STD)
            return size.scale_and_offset()
