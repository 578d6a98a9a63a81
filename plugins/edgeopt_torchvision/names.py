"""Names that torchvision gives to architectures, weights and files, known without importing torch.

A test holds them equal to those of the installed torchvision.
"""

from __future__ import annotations

from collections.abc import Mapping

_V1 = ("IMAGENET1K_V1",)
_V1_V2 = ("IMAGENET1K_V1", "IMAGENET1K_V2")
_SWAG = ("IMAGENET1K_SWAG_E2E_V1", "IMAGENET1K_SWAG_LINEAR_V1")

CIFAR10_FOLDER = "cifar-10-batches-py"
CIFAR10_FILES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")

#: Weights by architecture, without "DEFAULT", which every architecture has.
WEIGHTS: Mapping[str, tuple[str, ...]] = {
    "alexnet": _V1,
    "convnext_base": _V1,
    "convnext_large": _V1,
    "convnext_small": _V1,
    "convnext_tiny": _V1,
    "densenet121": _V1,
    "densenet161": _V1,
    "densenet169": _V1,
    "densenet201": _V1,
    "efficientnet_b0": _V1,
    "efficientnet_b1": _V1_V2,
    "efficientnet_b2": _V1,
    "efficientnet_b3": _V1,
    "efficientnet_b4": _V1,
    "efficientnet_b5": _V1,
    "efficientnet_b6": _V1,
    "efficientnet_b7": _V1,
    "efficientnet_v2_l": _V1,
    "efficientnet_v2_m": _V1,
    "efficientnet_v2_s": _V1,
    "googlenet": _V1,
    "inception_v3": _V1,
    "maxvit_t": _V1,
    "mnasnet0_5": _V1,
    "mnasnet0_75": _V1,
    "mnasnet1_0": _V1,
    "mnasnet1_3": _V1,
    "mobilenet_v2": _V1_V2,
    "mobilenet_v3_large": _V1_V2,
    "mobilenet_v3_small": _V1,
    "regnet_x_16gf": _V1_V2,
    "regnet_x_1_6gf": _V1_V2,
    "regnet_x_32gf": _V1_V2,
    "regnet_x_3_2gf": _V1_V2,
    "regnet_x_400mf": _V1_V2,
    "regnet_x_800mf": _V1_V2,
    "regnet_x_8gf": _V1_V2,
    "regnet_y_128gf": _SWAG,
    "regnet_y_16gf": (*_V1_V2, *_SWAG),
    "regnet_y_1_6gf": _V1_V2,
    "regnet_y_32gf": (*_V1_V2, *_SWAG),
    "regnet_y_3_2gf": _V1_V2,
    "regnet_y_400mf": _V1_V2,
    "regnet_y_800mf": _V1_V2,
    "regnet_y_8gf": _V1_V2,
    "resnet101": _V1_V2,
    "resnet152": _V1_V2,
    "resnet18": _V1,
    "resnet34": _V1,
    "resnet50": _V1_V2,
    "resnext101_32x8d": _V1_V2,
    "resnext101_64x4d": _V1,
    "resnext50_32x4d": _V1_V2,
    "shufflenet_v2_x0_5": _V1,
    "shufflenet_v2_x1_0": _V1,
    "shufflenet_v2_x1_5": _V1,
    "shufflenet_v2_x2_0": _V1,
    "squeezenet1_0": _V1,
    "squeezenet1_1": _V1,
    "swin_b": _V1,
    "swin_s": _V1,
    "swin_t": _V1,
    "swin_v2_b": _V1,
    "swin_v2_s": _V1,
    "swin_v2_t": _V1,
    "vgg11": _V1,
    "vgg11_bn": _V1,
    "vgg13": _V1,
    "vgg13_bn": _V1,
    "vgg16": (*_V1, "IMAGENET1K_FEATURES"),
    "vgg16_bn": _V1,
    "vgg19": _V1,
    "vgg19_bn": _V1,
    "vit_b_16": (*_V1, *_SWAG),
    "vit_b_32": _V1,
    "vit_h_14": _SWAG,
    "vit_l_16": (*_V1, *_SWAG),
    "vit_l_32": _V1,
    "wide_resnet101_2": _V1_V2,
    "wide_resnet50_2": _V1_V2,
}
