"""A program that ONNX takes as it is gives the file that torch's trace of it gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from small_programs import CLASSES, capture, images, outputs, quantized
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.onnx._internal.exporter import _fx_passes

from edgeopt_onnx import conversion
from edgeopt_onnx.conversion import export_onnx
from edgeopt_onnx.predictor import OnnxPredictor


class Plain(nn.Module):
    """What convolutional networks are made of: activations in place, residuals, a gate, poolings, flattening."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.middle = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.gate = nn.Conv2d(8, 8, 1)
        self.activations = nn.Sequential(
            nn.ReLU6(inplace=True), nn.SiLU(inplace=True), nn.LeakyReLU(inplace=True), nn.Hardsigmoid(inplace=True)
        )
        self.head = nn.Sequential(nn.Dropout(0.5, inplace=True), nn.Linear(24, CLASSES))

    def forward(self, batch: Tensor) -> Tensor:
        x = nn.functional.hardswish(self.stem(batch), inplace=True)
        x = nn.functional.relu(self.middle(x), inplace=True).add_(x)
        x = nn.functional.max_pool2d(
            x * nn.functional.hardsigmoid(self.gate(nn.functional.adaptive_avg_pool2d(x, 1))), 2
        )
        y = x.clamp(-1, 1)
        x = torch.cat([x, self.activations(x * 2), (y * 3).sigmoid_().mul_(y)], 1)
        return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(x, (1, 1)), 1))


class SeenLater(nn.Module):
    """A tensor that is written into is read afterwards, itself and through a view."""

    def __init__(self, *, view: bool) -> None:
        super().__init__()
        self.view = view
        self.stem = nn.Conv2d(3, CLASSES, 3)

    def forward(self, batch: Tensor) -> Tensor:
        x = self.stem(batch)
        seen = x.view(x.shape[0], CLASSES, -1) if self.view else x
        doubled = x.mul_(seen.mean())
        return (seen.flatten(1).sum(1, keepdim=True) + doubled.mean((2, 3))).relu()


class Wider(nn.Module):
    """The other input of a sum in place is of a wider type, which the sum does not take on."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CLASSES, 3)

    def forward(self, batch: Tensor) -> Tensor:
        x = self.stem(batch)
        x.add_(x.mean((2, 3), keepdim=True).double())
        return nn.functional.adaptive_avg_pool2d(x, 1).flatten(1)


NETS = {"plain": Plain(), "later": SeenLater(view=False), "view": SeenLater(view=True), "wider": Wider()}


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ExportedProgram]]:
    """The programs that torch walks through."""
    walked: list[ExportedProgram] = []
    trace = _fx_passes.decompose_with_registry

    def noted(program: ExportedProgram, registry: object) -> ExportedProgram:
        walked.append(program)
        return trace(program, registry)

    monkeypatch.setattr(_fx_passes, "decompose_with_registry", noted)
    yield walked


def nodes(path: Path) -> list[tuple[str, list[onnx.AttributeProto]]]:
    return [(node.op_type, list(node.attribute)) for node in onnx.load(path).graph.node]


@pytest.mark.parametrize("is_quantized", [False, True])
@pytest.mark.parametrize("dynamic_batch", [False, True])
def test_a_plain_program_is_not_walked_through_and_gives_the_same_graph(
    traces: list[ExportedProgram],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_quantized: bool,
    dynamic_batch: bool,
) -> None:
    program = capture(Plain().eval())
    program = quantized(program) if is_quantized else program
    quick = export_onnx(program, tmp_path / "quick.onnx", card_json="{}", dynamic_batch=dynamic_batch)
    assert not traces
    monkeypatch.setattr(conversion, "untraced_where_plain", lambda _program: nullcontext())
    traced = export_onnx(program, tmp_path / "traced.onnx", card_json="{}", dynamic_batch=dynamic_batch)
    assert len(traces) == 1
    assert nodes(quick.path) == nodes(traced.path)
    batch = images(3 if dynamic_batch else 1).numpy()
    with OnnxPredictor(quick.path, threads=1) as one, OnnxPredictor(traced.path, threads=1) as other:
        assert np.array_equal(one.predict(batch)[0], other.predict(batch)[0])


@pytest.mark.parametrize("name", ["later", "view", "wider"])
def test_what_others_see_of_a_tensor_that_is_written_into_stays(
    traces: list[ExportedProgram], tmp_path: Path, name: str
) -> None:
    torch.manual_seed(0)
    program = capture(NETS[name].eval())
    report = export_onnx(program, tmp_path / "model.onnx", card_json="{}")
    assert len(traces) == 1
    with OnnxPredictor(report.path, threads=1) as predictor:
        answers = predictor.predict(images(3).numpy())[0]
    assert np.allclose(answers, outputs(program, images(3)).numpy(), rtol=1e-4, atol=1e-5)
