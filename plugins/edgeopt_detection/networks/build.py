"""Builds torchvision's one-stage detectors for a number of classes."""

from __future__ import annotations

from typing import Literal

from torch import nn

from edgeopt_torchvision.compat import import_torchvision

Network = Literal["ssdlite", "retinanet", "fcos"]
Backbone = Literal["mobilenet_v3_large", "mobilenet_v3_small", "resnet18", "resnet34", "resnet50"]

_STRIDES_FROM_8 = (2, 3, 5)  # stages of a MobileNetV3 whose maps have strides of 8, 16 and 32 px
_PYRAMID_CHANNELS = 256


def build_detector(
    network: Network, backbone: Backbone, classes: int, anchors: tuple[float, float] | None = None
) -> nn.Module:
    """A torchvision detector, transform and NMS included, its weights drawn from torch's seeded generator.

    `classes` counts those of the data alone: where a network has a column for the background, it gets one more.
    `anchors` are SSDLite's sizes on its first and its last map, as shares of the image's edge.

    Raises `ValueError` for a backbone that SSDLite does not take: its layers are those of MobileNetV3-large.
    """
    import_torchvision()
    # after the careful import alone
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.fcos import FCOS
    from torchvision.models.detection.retinanet import RetinaNet
    from torchvision.models.detection.ssdlite import ssdlite320_mobilenet_v3_large

    if network == "ssdlite":
        if backbone != "mobilenet_v3_large":
            raise ValueError(f"SSDLite of torchvision stands on mobilenet_v3_large, not on {backbone}")
        ssdlite = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=classes + 1)
        if anchors is not None:
            ratios = ssdlite.anchor_generator.aspect_ratios
            ssdlite.anchor_generator = DefaultBoxGenerator(ratios, min_ratio=anchors[0], max_ratio=anchors[1])
        made: nn.Module = ssdlite
        return made
    build = {"retinanet": RetinaNet, "fcos": FCOS}[network]
    detector: nn.Module = build(_pyramid(backbone), num_classes=classes)
    return detector


def _pyramid(backbone: Backbone) -> nn.Module:
    """A backbone under a feature pyramid of five maps, with strides of 8 to 128 px and 256 channels each."""
    from torchvision.models.detection import backbone_utils
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    above = LastLevelP6P7(_PYRAMID_CHANNELS, _PYRAMID_CHANNELS)
    # torchvision freezes statistics by default, for weights that come pretrained; here they are learnt, and folded
    common = {"weights": None, "norm_layer": nn.BatchNorm2d, "extra_blocks": above}
    if backbone.startswith("resnet"):
        made = backbone_utils.resnet_fpn_backbone(
            backbone_name=backbone, trainable_layers=5, returned_layers=[2, 3, 4], **common
        )
    else:
        made = backbone_utils.mobilenet_backbone(
            backbone_name=backbone, fpn=True, trainable_layers=6, returned_layers=list(_STRIDES_FROM_8), **common
        )
    pyramid: nn.Module = made
    return pyramid
