"""Small networks captured as programs, float and int8, for the tests of the exporters."""

from __future__ import annotations

import warnings

import torch
from torch import nn
from torch.export import Dim, ExportedProgram, export

SIZE = 24
CLASSES = 5


class SmallNet(nn.Module):
    """Strided, depthwise and pointwise convolutions, BatchNorm, hardswish, squeeze-and-excitation, a residual, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.BatchNorm2d(8), nn.ReLU())
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Hardsigmoid())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.block(x) * self.squeeze(x)
        return self.head(self.pool(x).flatten(1))


class Inner(nn.Module):
    """Calls an operator on a picture's rows, three modules deep, where an error must say it stands."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind == "fft":
            return torch.fft.rfft(x).abs()
        if self.kind == "determinant":
            return x * torch.linalg.det(x)[:, :, None, None]
        if self.kind == "cumulative":
            return x.cumsum(dim=-1)
        return torch.special.i0(x)


def odd_net(kind: str) -> nn.Module:
    """A network with one operator, in `block.odd`, that runtimes may lack."""
    block = nn.Sequential()
    block.add_module("odd", Inner(kind))
    net = nn.Sequential()
    net.add_module("stem", nn.Conv2d(3, 4, 3, 2, 1))
    net.add_module("block", block)
    net.add_module("pool", nn.AdaptiveAvgPool2d(1))
    net.add_module("flat", nn.Flatten())
    return net.eval()


def float_net() -> nn.Module:
    """The small network with BatchNorm statistics of its own inputs, so that folding is not the identity."""
    torch.manual_seed(0)
    net = SmallNet().train()
    for _ in range(5):
        net(torch.randn(16, 3, SIZE, SIZE) * 2 + 0.5)
    return net.eval()


def capture(net: nn.Module) -> ExportedProgram:
    return export(net, (torch.randn(2, 3, SIZE, SIZE),), dynamic_shapes=({0: Dim("batch")},))


def quantized(program: ExportedProgram) -> ExportedProgram:
    """Static int8 with XNNPACK's numerics, unfolded."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        prepared = prepare_pt2e(program.module(check_guards=False), quantizer)
        for _ in range(4):
            prepared(torch.randn(16, 3, SIZE, SIZE) * 2 + 0.5)
        return capture(convert_pt2e(prepared, fold_quantize=False))


def pictures(count: int) -> torch.Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(7)) * 2 + 0.5


def outputs(program: ExportedProgram, batch: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return program.module(check_guards=False)(batch)
