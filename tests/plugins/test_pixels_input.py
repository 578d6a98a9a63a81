"""Programs that take pixels: normalizing inside changes nothing, at any size and however the weights fall."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from edgeopt.arrays import InputKind
from edgeopt.export.pixels_input import take_pixels
from edgeopt.networks.capture import export_program
from edgeopt.plugins import FunctionChangedError
from edgeopt.testing import tiny_data, tiny_program
from edgeopt.testing.network import TinyNet
from edgeopt.types import ModelState
from edgeopt_executorch.quantizer import build_xnnpack
from edgeopt_torchao.quantize.convert import convert
from edgeopt_torchao.quantize.prepare import calibrate, prepare_ptq

SIZES = (16, 24, 33, 48)
SEEDS = 8


def program_of(size: int, seed: int, *, is_int8: bool) -> ModelState:
    """An untrained network that has seen random images, so that its BatchNorms are not the identity."""
    data = tiny_data(image_size=size, per_class=4)
    state = tiny_program(data)
    torch.manual_seed(seed)
    network = TinyNet(3).train()
    images = torch.from_numpy(state.preprocessing.normalize(data.calibration.pixels(slice(0, 8))))
    for _ in range(3):
        network(images)
    program = export_program(network.eval(), images, state.batch_range)
    if is_int8:
        prepared = prepare_ptq(program, build_xnnpack(per_channel=True, qat=False))
        calibrate(prepared, [images])
        program = export_program(convert(prepared), images, state.batch_range)
    return replace(state, model=program)


@pytest.mark.parametrize("is_int8", [False, True], ids=["float", "int8"])
@pytest.mark.parametrize("size", SIZES)
def test_normalizing_inside_keeps_the_function(size: int, is_int8: bool) -> None:
    """Sums in another order would let integers fall to the other side of a step, for some images and not for others."""
    state = program_of(size, 0, is_int8=is_int8)
    for seed in range(SEEDS):
        assert take_pixels(state, seed).input_kind is InputKind.UINT8_NHWC


@pytest.mark.parametrize("is_int8", [False, True], ids=["float", "int8"])
def test_another_normalization_is_found(is_int8: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    state = program_of(32, 0, is_int8=is_int8)
    normalize = type(state.preprocessing).normalize
    monkeypatch.setattr(type(state.preprocessing), "normalize", lambda self, pixels: normalize(self, pixels) + 0.1)
    with pytest.raises(FunctionChangedError, match="normalizing inside the program"):
        take_pixels(state)
