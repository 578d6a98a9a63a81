"""Small networks captured as programs, float and int8, for the tests of the exporters."""

from __future__ import annotations

import warnings
from dataclasses import replace

import torch
from torch import nn
from torch.export import Dim, ExportedProgram, export

SIZE = 24
CLASSES = 5


class SmallNet(nn.Module):
    """Strided, depthwise and pointwise convolutions, BatchNorm, hardswish, squeeze-and-excitation,
    a residual, a head.
    """

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
    """Calls an operator on an image's rows, three modules deep, where an error must say it stands."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind == "fft":
            return torch.fft.rfft(x).abs()
        if self.kind == "complex":
            return torch.fft.fft2(x).real
        if self.kind == "double":
            return x.double().sin().float()
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


def quantized(
    program: ExportedProgram, weight_bits: int = 8, activation_bits: int = 8, zero_points: bool = True
) -> ExportedProgram:
    """Static integers of so many bits with XNNPACK's numerics, unfolded."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    config = get_symmetric_quantization_config(is_per_channel=True)
    weight, activation = config.weight, config.input_activation
    if weight_bits < 8:
        half = 2 ** (weight_bits - 1)
        weight = replace(weight, quant_min=1 - half, quant_max=half - 1)
    if activation_bits < 8:
        half = 2 ** (activation_bits - 1)
        activation = replace(activation, quant_min=-half, quant_max=half - 1)
    if not zero_points:
        activation = replace(activation, qscheme=torch.per_tensor_symmetric)
    config = replace(config, weight=weight, input_activation=activation, output_activation=activation)
    quantizer = XNNPACKQuantizer().set_global(config)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        prepared = prepare_pt2e(program.module(check_guards=False), quantizer)
        for _ in range(4):
            prepared(torch.randn(16, 3, SIZE, SIZE) * 2 + 0.5)
        return capture(convert_pt2e(prepared, fold_quantize=False))


def images(count: int) -> torch.Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(7)) * 2 + 0.5


def outputs(program: ExportedProgram, batch: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return program.module(check_guards=False)(batch)


class ExactNet(nn.Module):
    """Layers of few bits whose scales are powers of two, so that all sums are exact and only rounding and saturation
    are left.

    `bits` are those of the weights and of the activations between layers, which come after a ReLU, after nothing, and
    after a sum. Where `linear_only`, the layers are linear ones on flat images.
    """

    def __init__(self, weight_bits: int, activation_bits: int, *, linear_only: bool = False) -> None:
        super().__init__()
        self.half, self.low, self.high = (
            2 ** (weight_bits - 1) - 1,
            -(2 ** (activation_bits - 1)),
            2 ** (activation_bits - 1) - 1,
        )
        self.linear_only = linear_only
        random = torch.Generator().manual_seed(weight_bits * 10 + activation_bits)
        shapes = [(8, 3 * SIZE * SIZE), (8, 8), (8, 8)] if linear_only else [(8, 3, 3, 3), (8, 1, 3, 3), (8, 8, 3, 3)]
        for index, shape in enumerate([*shapes, (CLASSES, 8)]):
            steps = 2.0 ** -torch.randint(weight_bits - 2, weight_bits, (shape[0],), generator=random)
            integers = torch.randint(-self.half, self.half + 1, shape, generator=random)
            weight = integers * steps.view(-1, *[1] * (len(shape) - 1))
            self.register_parameter(f"weight{index}", nn.Parameter(weight))
            self.register_buffer(f"steps{index}", steps)
            self.register_buffer(f"zeros{index}", torch.zeros(shape[0], dtype=torch.int64))

    def weight(self, index: int) -> torch.Tensor:
        given = [getattr(self, f"{name}{index}") for name in ("steps", "zeros")]
        values = (*given, 0, -self.half, self.half, torch.int8)
        operators = torch.ops.quantized_decomposed
        integers = operators.quantize_per_channel(getattr(self, f"weight{index}"), *values)
        return operators.dequantize_per_channel(integers, *values)

    def rounded(self, x: torch.Tensor, scale: float, zero_point: int, low: int = -128, high: int = 127) -> torch.Tensor:
        values = (scale, zero_point, low, high, torch.int8)
        operators = torch.ops.quantized_decomposed
        return operators.dequantize_per_tensor(operators.quantize_per_tensor(x, *values), *values)

    def layer(self, x: torch.Tensor, index: int) -> torch.Tensor:
        if self.linear_only:
            return nn.functional.linear(x, self.weight(index))
        return nn.functional.conv2d(x, self.weight(index), padding=1, groups=8 if index == 1 else 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.linear_only:
            x = x.flatten(1)
        narrow = (self.low, self.high)
        x = self.rounded(x, 1 / 16, 3)
        x = self.rounded(nn.functional.relu(self.layer(x, 0)), 0.5, self.low, *narrow)
        if not self.linear_only:
            x = nn.functional.max_pool2d(x, 2, 2)
            x = self.rounded(x, 0.5, self.low, *narrow)
        y = self.rounded(self.layer(x, 1), 0.25, 0, *narrow)
        y = self.rounded(self.layer(y, 2), 0.25, 1, *narrow)
        x = self.rounded(x + y, 0.5, 0)  # eight bits, and then fewer in front of the next layer
        x = self.rounded(x, 1.0, -1, *narrow)
        if not self.linear_only:
            x = self.rounded(self.layer(x, 2), 0.5, 2, *narrow)
            x = self.rounded(nn.functional.max_pool2d(x, SIZE // 2, SIZE // 2), 0.5, 2, *narrow)
            x = self.rounded(x.flatten(1), 0.5, 2, *narrow)
        return self.rounded(nn.functional.linear(x, self.weight(3)), 1 / 4, 0)


def exact(weight_bits: int, activation_bits: int, *, linear_only: bool = False) -> ExportedProgram:
    """`ExactNet`, captured."""

    return capture(ExactNet(weight_bits, activation_bits, linear_only=linear_only).eval())
