"""Small networks, quantized as TensorRT wants it, for the tests of its plugin."""

from __future__ import annotations

import torch
from torch import nn
from torch.fx import GraphModule

from edgeopt.networks.capture import capture, export_program
from edgeopt.tasks import TASKS
from edgeopt.testing import tiny_data
from edgeopt.types import Form, ModelState
from edgeopt_tensorrt.quantizer import build_tensorrt
from edgeopt_torchao.quantize.convert import convert
from edgeopt_torchao.quantize.prepare import calibrate, prepare_ptq, prepare_qat

SIZE = 32
DATA = tiny_data(image_size=SIZE)


class Block(nn.Module):
    """The residual block of ResNet: in place where torchvision's is, with a shortcut of its own
    where the size changes.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.bn1(self.conv1(features)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(features)
        return self.relu(out)


class SmallResNet(nn.Module):
    """A stem, an identity block, a block with a shortcut, a depthwise convolution with a bias, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.same = Block(8, 8, 1)
        self.wider = Block(8, 16, 2)
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.Hardswish())
        self.head = nn.Linear(16, len(DATA.classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.depthwise(self.wider(self.same(self.stem(images))))
        return self.head(features.mean((2, 3)))


LAYERS = 8


def batches(count: int) -> list[torch.Tensor]:
    """Random images, always the same ones."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(8, 3, SIZE, SIZE, generator=generator) for _ in range(count)]


def small_resnet() -> nn.Module:
    """The network with BatchNorm statistics of its own inputs, so that folding is not the identity."""
    torch.manual_seed(0)
    net = SmallResNet().train()
    for batch in batches(3):
        net(batch)
    return net.eval()


def quantized(net: nn.Module, *, qat: bool = False, residual: bool = True) -> GraphModule:
    """A converted network: calibrated, or trained for some steps."""
    program = capture(net, batches(1)[0], (1, 64))
    quantizer = build_tensorrt(qat=qat, residual=residual)
    if not qat:
        prepared = prepare_ptq(program, quantizer)
        calibrate(prepared, batches(3))
        return convert(prepared)
    prepared = prepare_qat(program, quantizer)
    optimizer = torch.optim.SGD(prepared.parameters(), lr=1e-3)
    for batch in batches(3):
        optimizer.zero_grad()
        prepared(batch).square().mean().backward()
        optimizer.step()
    return convert(prepared)


def as_state(net: nn.Module, precision: str) -> ModelState:
    """A network as an exporter gets it."""
    program = export_program(net, batches(1)[0], (1, 64))
    task = TASKS["classification"]
    return ModelState(program, Form.PROGRAM, task, DATA.classes, DATA.preprocessing, precision)
