"""A quantized program computes its layers with integers, and so answers as files do, to the integer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import small_programs
import torch
from test_rounded_biases import converted, images, quantized
from torch import nn
from torch.fx import GraphModule

from edgeopt.networks.capture import export_program
from edgeopt.networks.integer_layers import compute_with_integers
from edgeopt_executorch.quantizer import build_xnnpack
from edgeopt_onnx.conversion import export_onnx
from edgeopt_onnx.predictor import OnnxPredictor
from edgeopt_torchao.quantize.biases import round_biases


def answers(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        answer: torch.Tensor = model(batch)
    return answer


@pytest.mark.parametrize("per_channel", [True, False])
def test_a_program_answers_as_its_file_to_the_integer(per_channel: bool, tmp_path: Path) -> None:
    model = converted(per_channel)
    round_biases(model)
    program = export_program(model, images(2), (1, 64))
    with OnnxPredictor(export_onnx(program, tmp_path / "a.onnx", card_json="{}").path, threads=1) as predictor:
        expected = predictor.predict(images(64).numpy())[0]
    module = program.module()
    assert isinstance(module, GraphModule)
    before = answers(module, images(64)).numpy()
    assert compute_with_integers(module) == 10
    after = answers(module, images(64)).numpy()
    assert np.abs(after - expected).max() < 1e-5
    step = np.diff(np.unique(expected.round(5))).min()
    assert np.abs(after - before).max() < 20 * step, "the function is another one"


def test_neither_neighbours_nor_threads_change_an_answer() -> None:
    module = export_program(converted(), images(2), (1, 64)).module()
    assert isinstance(module, GraphModule)
    compute_with_integers(module)
    together = answers(module, images(32))
    alone = torch.cat([answers(module, each[None]) for each in images(32)])
    assert torch.equal(together, alone)


class Clipped(nn.Module):
    """Layers behind which something is clipped, or read twice, or not rounded, and one that is transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU6())
        self.twice = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=2)
        self.larger = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.last = nn.Linear(8, 4)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        maps = self.twice(self.first(batch))
        maps = torch.relu(maps) + torch.sigmoid(maps)
        return self.last(self.larger(maps).relu().mean((2, 3)))


def test_layers_are_found_behind_clips_and_the_others_stay() -> None:
    torch.manual_seed(0)
    model = quantized(Clipped().eval(), build_xnnpack(per_channel=True, qat=False))
    plain = export_program(model, images(2), (1, 64)).module()
    module = export_program(model, images(2), (1, 64)).module()
    assert isinstance(module, GraphModule)
    found = compute_with_integers(module)
    kept = [str(node.target) for node in module.graph.nodes if "conv_transpose" in str(node.target)]
    assert found == 3
    assert len(kept) == 1
    before, after = answers(plain, images(32)), answers(module, images(32))
    assert (after - before).abs().max() <= 0.02 * (before.max() - before.min())


@pytest.mark.parametrize("bits", [8, 4])
def test_the_function_stays_with_every_number_of_bits(bits: int) -> None:
    program = small_programs.quantized(small_programs.capture(small_programs.float_net()), weight_bits=bits)
    batch = torch.randn(16, 3, small_programs.SIZE, small_programs.SIZE, generator=torch.Generator().manual_seed(2))
    expected = answers(program.module(), batch)
    module = program.module()
    assert isinstance(module, GraphModule)
    assert compute_with_integers(module) == 4
    assert (answers(module, batch) - expected).abs().max() <= 0.02 * (expected.max() - expected.min())


def test_a_float_program_stays_as_it_is() -> None:
    module = small_programs.capture(small_programs.float_net()).module()
    assert isinstance(module, GraphModule)
    assert compute_with_integers(module) == 0
