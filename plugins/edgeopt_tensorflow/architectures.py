"""The architectures of Keras Applications, and the images that their ImageNet weights expect; imports no Keras."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Expects = Literal["symmetric", "imagenet", "caffe"]
"""Images as the published weights know them: scaled to -1..1; normalized by ImageNet's mean and deviation; or pixels
minus ImageNet's mean, blue before red."""


@dataclass(frozen=True)
class Architecture:
    """One network.

    `alpha` says whether its width can be chosen, `preprocessing` whether it comes with layers that scale pixels: always
    ("built-in"), or where an argument asks for them ("option").
    """

    expects: Expects
    alpha: bool = False
    preprocessing: Literal["none", "option", "built-in"] = "none"


_SYMMETRIC = Architecture("symmetric")
_CAFFE = Architecture("caffe")
_IMAGENET = Architecture("imagenet")
_CONVNEXT = Architecture("imagenet", preprocessing="option")
_EFFICIENTNET = Architecture("imagenet", preprocessing="built-in")

ARCHITECTURES: dict[str, Architecture] = {
    **{f"ConvNeXt{size}": _CONVNEXT for size in ("Tiny", "Small", "Base", "Large", "XLarge")},
    **{f"DenseNet{depth}": _IMAGENET for depth in (121, 169, 201)},
    **{f"EfficientNetB{number}": _EFFICIENTNET for number in range(8)},
    **{f"EfficientNetV2B{number}": Architecture("imagenet", preprocessing="option") for number in range(4)},
    **{f"EfficientNetV2{size}": Architecture("symmetric", preprocessing="option") for size in "SML"},
    "InceptionResNetV2": _SYMMETRIC,
    "InceptionV3": _SYMMETRIC,
    "MobileNet": Architecture("symmetric", alpha=True),
    "MobileNetV2": Architecture("symmetric", alpha=True),
    "MobileNetV3Large": Architecture("symmetric", alpha=True, preprocessing="option"),
    "MobileNetV3Small": Architecture("symmetric", alpha=True, preprocessing="option"),
    "NASNetLarge": _SYMMETRIC,
    "NASNetMobile": _SYMMETRIC,
    **{f"ResNet{depth}": _CAFFE for depth in (50, 101, 152)},
    **{f"ResNet{depth}V2": _SYMMETRIC for depth in (50, 101, 152)},
    "VGG16": _CAFFE,
    "VGG19": _CAFFE,
    "Xception": _SYMMETRIC,
}
