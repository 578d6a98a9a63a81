"""The fake quantizer against torchao's: the same ranges, the observer's scale, the same rounding and gradients."""

import copy

import pytest
import torch
from torch import nn
from torchao.quantization.pt2e import (
    FakeQuantize,
    FusedMovingAvgObsFakeQuantize,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
)

from edgeopt.errors import PluginError
from edgeopt_torchao.graph.fake_quantize import (
    FakeQuantizer,
    quantization_parameters,
    replace_fake_quantizers,
)

ACTIVATION = {
    "observer": MovingAverageMinMaxObserver,
    "dtype": torch.int8,
    "quant_min": -128,
    "quant_max": 127,
    "qscheme": torch.per_tensor_affine,
    "eps": 2**-12,
}
WEIGHT = {
    "observer": MovingAveragePerChannelMinMaxObserver,
    "dtype": torch.int8,
    "quant_min": -127,
    "quant_max": 127,
    "qscheme": torch.per_channel_symmetric,
    "ch_axis": 0,
    "eps": 2**-12,
}
WEIGHT_PER_TENSOR = WEIGHT | {"observer": MovingAverageMinMaxObserver, "qscheme": torch.per_tensor_symmetric}
WEIGHT_PER_TENSOR.pop("ch_axis")
CASES = pytest.mark.parametrize(
    "options", [ACTIVATION, WEIGHT, WEIGHT_PER_TENSOR], ids=["activation", "weight", "whole"]
)


def pair(options: dict) -> tuple[FusedMovingAvgObsFakeQuantize, FakeQuantizer]:
    theirs = FusedMovingAvgObsFakeQuantize(**options)
    return theirs, FakeQuantizer(copy.deepcopy(theirs.activation_post_process), channels=6)


def values(seed: int, size: float = 1.0) -> torch.Tensor:
    return size * (torch.randn(6, 5, 4, 3, generator=torch.Generator().manual_seed(seed)) + 0.1)


@CASES
def test_the_range_moves_as_in_the_fused_kernel(options: dict) -> None:
    theirs, ours = pair(options)
    for seed in range(5):
        theirs(values(seed))
        ours(values(seed))
    torch.testing.assert_close(ours.activation_post_process.min_val, theirs.activation_post_process.min_val)
    torch.testing.assert_close(ours.activation_post_process.max_val, theirs.activation_post_process.max_val)


@CASES
@pytest.mark.parametrize("size", [1.0, 1e-3], ids=["wide", "narrower-than-eps"])
def test_the_scale_is_the_one_that_conversion_ships(options: dict, size: float) -> None:
    _, ours = pair(options)
    for seed in range(3):
        ours(values(seed, size))
    scale, zero_point = ours.calculate_qparams()
    assert torch.equal(ours.scale, scale)
    assert torch.equal(ours.zero_point, zero_point.int())


def test_the_fused_kernel_trains_with_another_scale_than_it_ships() -> None:
    """Why `FakeQuantizer` exists; if this fails, torchao has changed and the fused module can be used again."""
    theirs, _ = pair(WEIGHT)
    theirs(values(0, 1e-3))
    shipped, _ = theirs.calculate_qparams()
    assert (shipped / theirs.scale).min() > 3.9


@CASES
@pytest.mark.parametrize("compiling", [False, True], ids=["eager", "plain-operators"])
def test_rounding_and_gradient_equal_torchs_kernels(
    options: dict, compiling: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ours = pair(options)
    for seed in range(3):
        ours(values(seed))
    ours.disable_observer()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)

    def kernel(sample: torch.Tensor) -> torch.Tensor:
        limits = options["quant_min"], options["quant_max"]
        if ours.is_per_channel:
            return torch.fake_quantize_per_channel_affine(sample, ours.scale, ours.zero_point, 0, *limits)
        return torch.fake_quantize_per_tensor_affine(sample, ours.scale, ours.zero_point, *limits)

    outputs, gradients = [], []
    for function in (kernel, ours):
        sample = values(9, 3.0).requires_grad_()  # wider than what was observed, so that some is clamped
        output = function(sample)
        output.backward(values(10))
        outputs.append(output)
        gradients.append(sample.grad)
    torch.testing.assert_close(outputs[1], outputs[0])
    assert torch.equal(gradients[1], gradients[0])
    assert 0 < (gradients[0] == 0).sum() < gradients[0].numel()


def test_an_activation_is_rounded_as_in_the_fused_kernel() -> None:
    theirs, ours = pair(ACTIVATION)
    for seed in range(5):
        results = []
        for module in (theirs, ours):
            sample = values(seed, seed + 1.0).requires_grad_()
            result = module(sample)
            result.backward(values(seed + 20))
            results.append((result, sample.grad))
        (expected, expected_gradient), (result, gradient) = results
        torch.testing.assert_close(result, expected)
        assert torch.equal(gradient, expected_gradient)


@pytest.mark.parametrize("options", [WEIGHT, WEIGHT_PER_TENSOR], ids=["per-channel", "per-tensor"])
@pytest.mark.parametrize("compiling", [False, True], ids=["eager", "plain-operators"])
def test_a_channel_scale_rounds_the_scaled_weight(
    options: dict, compiling: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    _, scaled = pair(options)
    reference = copy.deepcopy(scaled)
    channel_scale = torch.tensor([1.0, -2.0, 0.5, 3.0, -0.1, 10.0])
    shape = (-1, 1, 1, 1)
    result = scaled(values(0), channel_scale)
    expected = reference(values(0) * channel_scale.view(shape)) / channel_scale.view(shape)
    torch.testing.assert_close(scaled.scale, reference.scale)
    torch.testing.assert_close(result, expected)


def test_evaluation_and_switches() -> None:
    _, ours = pair(ACTIVATION)
    ours(values(0))
    state = copy.deepcopy(ours.state_dict())
    ours.eval()(values(1, 10))
    ours.train().disable_observer()
    ours(values(2, 10))
    assert all(torch.equal(value, state[name]) for name, value in ours.state_dict().items() if "enabled" not in name)
    ours.disable_fake_quant()
    assert torch.equal(ours(values(3)), values(3))
    restored = pair(ACTIVATION)[1]
    restored.load_state_dict(ours.state_dict())
    assert (restored.observing, restored.quantizing) == (False, False)


def test_parameters_of_any_range_equal_the_observers() -> None:
    for options in (ACTIVATION, WEIGHT_PER_TENSOR):
        observer = pair(options)[1].activation_post_process
        for low, high in [(-1.0, 2.0), (0.5, 2.0), (-3.0, -1.0), (0.0, 0.0), (-1e-9, 1e-9), (-1e9, 1.0)]:
            observer.min_val.fill_(low)
            observer.max_val.fill_(high)
            scale, zero_point = quantization_parameters(observer.min_val, observer.max_val, observer)
            expected_scale, expected_zero_point = observer.calculate_qparams()
            assert scale == expected_scale
            assert zero_point == expected_zero_point


def test_a_fake_quantizer_of_another_kind_is_refused() -> None:
    module = torch.fx.symbolic_trace(nn.Sequential(nn.Identity()))
    module.set_submodule("0", FakeQuantize(observer=MinMaxObserver, dtype=torch.int8, quant_min=-128, quant_max=127))
    with pytest.raises(PluginError, match="MinMaxObserver"):
        replace_fake_quantizers(module)
