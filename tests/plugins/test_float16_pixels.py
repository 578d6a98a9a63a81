"""Float16 files that take pixels: the normalization is done in float32, whatever the runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeopt.arrays import InputKind
from edgeopt.export.pixels_input import take_pixels
from edgeopt.networks.capture import export_program
from edgeopt.plugins import ExporterPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve
from edgeopt.testing import tiny_data, tiny_program
from edgeopt.testing.exporter import export_file
from edgeopt.types import ModelState

SIZE = 16


class Averages(nn.Module):
    """A convolution that changes nothing, and the average of each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Conv2d(3, 3, 1)
        nn.init.dirac_(self.same.weight)
        nn.init.zeros_(self.same.bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.same(images).mean((2, 3))


@pytest.fixture(scope="module")
def state() -> ModelState:
    """A program whose normalization is the small difference of two large numbers."""
    state = tiny_program(tiny_data(3, SIZE))
    preprocessing = replace(state.preprocessing, mean=(0.501, 0.5, 0.499), std=(0.003, 0.003, 0.003))
    program = export_program(Averages().eval(), torch.randn(2, 3, SIZE, SIZE), state.batch_range)
    return take_pixels(replace(state, model=program, preprocessing=preprocessing))


@pytest.mark.parametrize("runtime", ["executorch", "onnx", "tflite"])
def test_pixels_are_normalized_in_float32(runtime: str, state: ModelState, tmp_path: Path) -> None:
    assert state.input_kind is InputKind.UINT8_NHWC
    use = resolve(ExporterPlugin, runtime, {"precision": "float16"}, load_registry())
    file, result = export_file(use, state, tmp_path)
    assert (result.precision, result.input.dtype) == ("float16", "uint8")
    pixels = np.random.default_rng(0).integers(125, 131, (1, SIZE, SIZE, 3), dtype=np.uint8)
    with torch.no_grad():
        wanted = state.program.module()(torch.from_numpy(pixels)).numpy()
    with use.plugin.opened(file, 1) as predictor:
        answer = predictor.predict(pixels)[0]
    # Values up to 4 in float16: a step of 2**-9, and of the average less. Normalized in float16, each is off by 0.1.
    np.testing.assert_allclose(answer, wanted, rtol=0, atol=0.004)
