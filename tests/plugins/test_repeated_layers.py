"""Layers that a network calls several times: each call is quantized with scales of its own."""

import pytest
import torch
from torch import nn
from torch.export import ExportedProgram

from edgeopt.networks.capture import capture, export_program
from edgeopt.plugins.declarations import Bits
from edgeopt_executorch.quantizer import build_xnnpack
from edgeopt_torchao.bits.rules import BitRules, NarrowingQuantizer
from edgeopt_torchao.graph.layers import count_quantized
from edgeopt_torchao.quantize.agreement import compare
from edgeopt_torchao.quantize.convert import convert
from edgeopt_torchao.quantize.prepare import calibrate, prepare_ptq, prepare_qat
from edgeopt_torchao.repair.equalization import equalize
from edgeopt_torchao.repair.reconstruction import Repairs, repair

BATCHES = (1, 16)


class Repeated(nn.Module):
    """A block with BatchNorm that is called three times, and a convolution that is called twice, as in channel
    attention.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.squeeze = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.stem(images)
        for _ in range(3):
            x = x + self.block(x)
        gate = self.squeeze(x.mean((2, 3), keepdim=True)) + self.squeeze(x.amax((2, 3), keepdim=True))
        return self.head((x * torch.sigmoid(gate)).mean((2, 3)))


LAYERS = 2 + 3 + 2 + 1


def images(seed: int = 0) -> torch.Tensor:
    return torch.randn(16, 3, 24, 24, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def program() -> ExportedProgram:
    torch.manual_seed(0)
    model = Repeated()
    nn.init.normal_(model.block[1].running_mean, std=0.1)
    nn.init.uniform_(model.block[1].running_var, 0.2, 0.6)
    nn.init.uniform_(model.block[1].weight, 0.5, 1.5)
    return capture(model, images(), BATCHES)


def test_every_call_is_quantized_after_training(program: ExportedProgram) -> None:
    prepared = prepare_ptq(program, build_xnnpack(per_channel=True, qat=False))
    calibrate(prepared, [images(seed) for seed in range(3)])
    converted = convert(prepared)
    counts = count_quantized(export_program(converted, images(), BATCHES))
    assert (counts.layers, counts.quantized, counts.float_layers) == (LAYERS, LAYERS, ())
    assert compare(program.module(), converted, [images()]).relative_difference < 0.05


def test_each_call_is_repaired_by_itself(program: ExportedProgram) -> None:
    quantizer = NarrowingQuantizer(build_xnnpack(per_channel=True, qat=False), BitRules(patterns={"block": Bits(4, 8)}))
    prepared = prepare_ptq(program, quantizer, _equalized)
    calibrate(prepared, [images(seed) for seed in range(3)])
    plain = convert(prepared)
    converted = convert(prepared)
    repaired = repair(prepared, converted, images(), Repairs(rounding_steps=50, correct_bias=True), seed=0)
    assert {name: bits.weights for name, bits in quantizer.chosen.items()} == {
        "stem.0": 8,
        "stem.2": 8,
        "block.0": 4,
        "squeeze": 8,
        "head": 8,
    }
    assert repaired.layers == repaired.biases_corrected == LAYERS
    wanted = program.module()
    before, after = (compare(wanted, each, [images()]).relative_difference for each in (plain, converted))
    assert after < before < 0.3


def _equalized(model: torch.fx.GraphModule) -> None:
    equalize(model, [images()])


def test_calls_learn_together_in_training(program: ExportedProgram) -> None:
    prepared = prepare_qat(program, build_xnnpack(per_channel=True, qat=True))
    assert sum(each.numel() for each in prepared.parameters()) == sum(each.numel() for each in program.parameters())
    optimizer = torch.optim.SGD(prepared.parameters(), lr=0.05)
    for seed in range(3):
        loss = nn.functional.cross_entropy(prepared(images(seed)), torch.arange(16) % 5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    prepared.eval()
    trained = prepared.state_dict()
    assert torch.equal(trained["block.0.weight"], trained["block.0#3.weight"])
    assert not torch.equal(trained["block.0.weight"], program.state_dict["block.0.weight"])
    converted = convert(prepared)
    assert count_quantized(export_program(converted, images(), BATCHES)).quantized == LAYERS
    assert compare(prepared, converted, [images()]).relative_difference < 0.02
