"""No pixel lies between two integers of an int8 input, whatever an image is normalized with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchao.quantization.pt2e import MinMaxObserver

from edgeopt.networks.bits import Rounding, rounding_of
from edgeopt.networks.capture import capture, export_program
from edgeopt_executorch.quantizer import build_xnnpack
from edgeopt_onnx.conversion import export_onnx
from edgeopt_onnx.predictor import OnnxPredictor
from edgeopt_torchao.graph.input_ranges import between_pixels
from edgeopt_torchao.quantize.convert import convert
from edgeopt_torchao.quantize.prepare import calibrate, prepare_ptq, prepare_qat

GREY = torch.arange(256.0) / 255
SIZE = 16
FAR = 2e-4  # steps: twenty times what the last bits of a float32 come to


def images(mean: float, std: float) -> torch.Tensor:
    """Every grey value, float32 (2, 3, 16, 16)."""
    return ((GREY - mean) / std).reshape(1, 1, SIZE, SIZE).repeat(2, 3, 1, 1)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 14), nn.Flatten()).eval()


def program(mean: float, *, qat: bool, zero_points: bool = True) -> torch.export.ExportedProgram:
    quantizer = build_xnnpack(per_channel=True, qat=qat, zero_points=zero_points)
    shown = images(mean, 0.5)
    captured = capture(network(), shown, (1, 64))
    prepared = prepare_qat(captured, quantizer) if qat else prepare_ptq(captured, quantizer)
    calibrate(prepared, [shown])
    return export_program(convert(prepared), shown, (1, 64))


def rounding_of_input(program: torch.export.ExportedProgram) -> Rounding:
    node = next(each for each in program.graph.nodes if "quantize_per_tensor" in str(each.target))
    rounding = rounding_of(node)
    assert rounding is not None
    return rounding


def steps_of(mean: float, rounding: Rounding) -> torch.Tensor:
    """Where each grey value lies, in steps of the integers."""
    return ((GREY.double() - mean) / 0.5) / rounding.scale


def from_between(steps: torch.Tensor) -> float:
    """The least distance, in steps, of a value from the middle between two integers."""
    return float((steps - steps.floor() - 0.5).abs().min())


@pytest.mark.parametrize("qat", [False, True], ids=["ptq", "qat"])
def test_the_grey_values_of_a_mean_of_a_half_stay_apart(qat: bool) -> None:
    steps = steps_of(0.5, rounding_of_input(program(0.5, qat=qat)))
    assert len(steps.round().unique()) >= 255  # 128 where each takes two values
    assert from_between(steps) > FAR


@pytest.mark.parametrize("qat", [False, True], ids=["ptq", "qat"])
def test_symmetric_integers_are_between_no_grey_values_either(qat: bool) -> None:
    steps = steps_of(0.0, rounding_of_input(program(0.0, qat=qat, zero_points=False)))
    assert from_between(steps) > FAR  # with 127.5 steps every other value is half a step off


@pytest.mark.parametrize("qat", [False, True], ids=["ptq", "qat"])
@pytest.mark.parametrize("mean", [0.0, 1 / 3, 1.0])
def test_a_range_whose_integers_are_grey_values_is_left_alone(mean: float, qat: bool) -> None:
    rounding = rounding_of_input(program(mean, qat=qat))
    assert rounding.scale == pytest.approx(2 / 255, rel=1e-3)


def test_a_file_answers_as_its_program_on_every_grey_value(tmp_path: Path) -> None:
    made, shown = program(0.5, qat=True), images(0.5, 0.5)
    with torch.no_grad():
        expected = made.module()(shown).numpy()
    with OnnxPredictor(export_onnx(made, tmp_path / "grey.onnx", card_json="{}").path, threads=1) as predictor:
        np.testing.assert_allclose(predictor.predict(shown.numpy())[0], expected, rtol=0, atol=1e-4)


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(0.05, 2), st.booleans())
def test_a_range_grows_by_one_step_at_most_and_only_where_it_must(mean: float, std: float, symmetric: bool) -> None:
    scheme = torch.per_tensor_symmetric if symmetric else torch.per_tensor_affine
    observer = MinMaxObserver(dtype=torch.int8, qscheme=scheme, quant_min=-128, quant_max=127)
    low, high = torch.tensor(-mean / std), torch.tensor((1 - mean) / std)
    moved = between_pixels(low, high, observer)
    before = (2 * max(-low, high) if symmetric else high - low) / 255
    after = (moved[1] - moved[0]) / 255
    assert before * (1 - 1e-6) <= after <= before * (255 / 254) * (1 + 1e-5)
    beside = abs((float(low / before) % 1) - 0.5)
    if not symmetric and beside > 0.02:
        assert (moved[0], moved[1]) == (low, high)


def test_an_empty_range_stays_empty() -> None:
    observer = MinMaxObserver(dtype=torch.int8, quant_min=-128, quant_max=127)
    zero = torch.zeros(())
    assert between_pixels(zero, zero, observer) == (zero, zero)
