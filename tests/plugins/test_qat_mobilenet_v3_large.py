"""Quantization-aware training must not change MobileNetV3-large before it starts (pytorch issue 114859).

There, accuracy on ImageNet fell from 74.05 to 62.17 %. torchao's conv-BatchNorm fusion rebuilds each BatchNorm with
eps=1e-5 and momentum=0.1; MobileNetV3 has eps=1e-3 and momentum=0.01, and a quarter of its trained channels have a
variance below 1e-3, where the other eps multiplies them by up to ten.
"""

import copy

import pytest
import torch
from torch import nn

from edgeopt.networks.capture import capture
from edgeopt_executorch.quantizer import build_xnnpack
from edgeopt_torchao.graph.batch_norm import batch_norms
from edgeopt_torchao.graph.fake_quantize import fake_quantizers
from edgeopt_torchao.quantize.agreement import compare
from edgeopt_torchao.quantize.convert import convert
from edgeopt_torchao.quantize.freeze import freeze_batch_norm
from edgeopt_torchao.quantize.prepare import prepare_qat
from edgeopt_torchvision.compat import import_torchvision

TORCHAO_EPS = 1e-5


def images(seed: int) -> torch.Tensor:
    return torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """Untrained, with the quiet channels of a trained model: the convolution before every third
    channel is turned down.
    """
    torch.manual_seed(0)
    model = import_torchvision().models.mobilenet_v3_large(num_classes=10)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        for convolution in model.modules():
            if isinstance(convolution, nn.Conv2d) and convolution.bias is None:
                nn.init.kaiming_normal_(convolution.weight, mode="fan_in")
                convolution.weight[::3] *= 0.02
        for layer in model.classifier:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
        for norm in norms:
            norm.momentum = None  # the plain average of the batches below
        for seed in range(4):
            model.train()(images(seed))
        for norm in norms:
            norm.momentum = 0.01
    return model.eval()


@pytest.fixture(scope="module")
def prepared(model: nn.Module) -> nn.Module:
    return prepare_qat(capture(model, images(0), (1, 64)), build_xnnpack(per_channel=True, qat=True)).eval()


def test_the_model_has_the_channels_on_which_the_constants_matter(model: nn.Module) -> None:
    variances = torch.cat([norm.running_var for norm in model.modules() if isinstance(norm, nn.BatchNorm2d)])
    assert 0.05 < (variances < 1e-3).double().mean() < 0.5


def test_every_batch_norm_keeps_its_constants(prepared: nn.Module) -> None:
    assert [(norm.eps, norm.momentum) for norm in batch_norms(prepared)] == [(1e-3, 0.01)] * 46


def test_with_rounding_off_the_prepared_model_is_the_float_model(model: nn.Module, prepared: nn.Module) -> None:
    prepared = copy.deepcopy(prepared)
    for quantizer in fake_quantizers(prepared):
        quantizer.disable_fake_quant()
    assert compare(model, prepared, [images(9)]).relative_difference < 1e-5

    for norm in batch_norms(prepared):  # what the upstream fusion does, to show that this test would see it
        norm.eps = TORCHAO_EPS
    assert compare(model, prepared, [images(9)]).relative_difference > 0.1


def test_what_is_trained_is_what_is_converted(prepared: nn.Module) -> None:
    prepared = copy.deepcopy(prepared)
    with torch.no_grad():
        for seed in range(3):
            prepared.train()(images(seed))
    assert freeze_batch_norm(prepared) == 46
    agreement = compare(prepared.eval(), convert(prepared), [images(9)])
    # A value on the edge between two integers may fall either way after another order of additions, and an untrained
    # network passes each such step on; folding with the wrong eps would change the logits by several times their range.
    assert agreement.relative_difference < 0.1
