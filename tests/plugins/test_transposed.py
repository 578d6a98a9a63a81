"""Transposed convolutions, and BatchNorms behind them, after every pass that quantizes and in every runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_samples import make_context, make_state

from edgeopt.measure.answers import feeder, file_outputs
from edgeopt.networks.bits import layer_bits
from edgeopt.networks.capture import program_outputs, to_program
from edgeopt.plugins import ExporterPlugin, ExportError, ModelState, PassPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.progress import Silent
from edgeopt.recipe.lookup import resolve
from edgeopt.testing import ExporterContract
from edgeopt.testing.exporter import export_file

CHANNELS, WIDTH = 8, 12


class Up(nn.Module):
    """A layer, a transposed convolution with or without BatchNorm and an activation, and a head."""

    def __init__(self, *, norm: bool = True, then: type[nn.Module] = nn.ReLU, kernel: int = 3, **options: Any) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 3, 2, 1)
        self.up = nn.ConvTranspose2d(CHANNELS, WIDTH, kernel, 2, bias=not norm, **options)
        self.norm = nn.BatchNorm2d(WIDTH) if norm else nn.Identity()
        self.then = then()
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.then(self.norm(self.up(self.stem(images)))).mean((2, 3)))


class Row(nn.Module):
    """The same in one dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 3, 2, 1)
        self.up = nn.ConvTranspose1d(CHANNELS, WIDTH, 3, 2, padding=1, output_padding=1, bias=False)
        self.norm = nn.BatchNorm1d(WIDTH)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.up(self.stem(images).mean(3)))).mean(2))


NETWORKS = {
    "plain": lambda: Up(norm=False, then=nn.Identity, kernel=2),
    "BatchNorm": lambda: Up(then=nn.Identity, kernel=2),
    "BatchNorm and ReLU6": lambda: Up(then=nn.ReLU6, kernel=2),
    "padding": lambda: Up(kernel=4, padding=1),
    "output padding": lambda: Up(padding=1, output_padding=1),
    "output padding beyond the padding": lambda: Up(norm=False, output_padding=1),
    "dilated": lambda: Up(dilation=2),
    "groups": lambda: Up(groups=4, padding=1, output_padding=1),
    "dilated groups": lambda: Up(groups=2, dilation=2, padding=2, output_padding=1),
    "in one dimension": Row,
}
INT8 = ("plain", "BatchNorm and ReLU6", "output padding", "groups", "in one dimension")
IN_FLOAT = ("groups",)  # XNNPACK has no int8 kernel for them


def state_of(name: str) -> ModelState:
    torch.manual_seed(0)
    network = NETWORKS[name]().train()
    for each in network.modules():
        if isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(each.weight, 0.5, 1.5)
            nn.init.uniform_(each.bias, -0.3, 0.3)
    with torch.no_grad():
        for _ in range(20):
            network(torch.randn(16, 3, 12, 12))
    return make_state(network.eval())


def passed(state: ModelState, folder: Path, name: str, **options: Any) -> ModelState:
    """What a pass makes of a network; a training moves little, as is enough here."""
    if name == "qat":
        options = {"epochs": 1, "batch_size": 16, "learning_rate": 1e-4, **options}
    use = resolve(PassPlugin, name, options, load_registry())
    return use.plugin.apply(state, use.options, make_context(folder / "work"))


def require_agreement(state: ModelState, runtime: str, folder: Path, tolerance: float) -> dict[str, Any]:
    """Exports, opens and compares with the program, as a share of the logits' range; returns the file's facts."""
    use = resolve(ExporterPlugin, runtime, {}, load_registry())
    (folder / runtime).mkdir()
    file, result = export_file(use, state, folder / runtime)
    data = make_context(folder / "data").data
    expected = program_outputs(state, data.validation, Silent(), "program")[0]
    with use.plugin.opened(file, 1) as predictor:
        logits = file_outputs(predictor, data.validation, feeder("values", data.preprocessing), Silent(), "file")[0]
    assert np.abs(logits - expected).max() <= tolerance * np.ptp(expected), runtime
    return dict(result.facts)


IN_ALL_RUNTIMES = ("groups", "BatchNorm and ReLU6", "in one dimension")
"""The others are what `.tflite` has no layer of its own for."""


@pytest.mark.parametrize("name", NETWORKS)
def test_float_files_agree(name: str, tmp_path: Path) -> None:
    state = state_of(name)
    program = to_program(state, make_context(tmp_path / "data").data.validation)
    for runtime in ("executorch", "onnx", "tflite") if name in IN_ALL_RUNTIMES else ("tflite",):
        require_agreement(program, runtime, tmp_path, 1e-4)


TRAINED = ("groups", "BatchNorm and ReLU6")


@pytest.mark.parametrize(("how", "name"), [*(("ptq", name) for name in INT8), *(("qat", name) for name in TRAINED)])
def test_int8_files_agree_with_every_layer_that_the_program_has(how: str, name: str, tmp_path: Path) -> None:
    state = state_of(name)
    after = passed(state, tmp_path, how)
    expected = 2 if name in IN_FLOAT else 3
    assert [each.name for each in layer_bits(after.model) if each.weights is None] == ["up"] * (3 - expected)
    for runtime in ("executorch", "onnx"):
        assert (
            require_agreement(after, runtime, tmp_path, ExporterContract.int8_tolerance)["layers_quantized"] == expected
        )
    if name in IN_FLOAT:
        assert (
            require_agreement(after, "tflite", tmp_path, ExporterContract.int8_tolerance)["layers_quantized"]
            == expected
        )
    else:
        with pytest.raises(ExportError, match=r"no int8 transposed convolution.*up in float\n.*layer_bits"):
            require_agreement(after, "tflite", tmp_path, ExporterContract.int8_tolerance)


@pytest.mark.parametrize("how", ["ptq", "qat"])
def test_scales_are_those_of_output_channels_with_batch_norm_folded_in(how: str, tmp_path: Path) -> None:
    """After `ptq` it answers as the float network; training moves that, and checks its own conversion."""
    state = state_of("output padding")
    data = make_context(tmp_path / "data").data
    float_logits = program_outputs(to_program(state, data.calibration), data.calibration, Silent(), "float")[0]
    after = passed(state, tmp_path, how)
    if how == "ptq":
        logits = program_outputs(after, data.calibration, Silent(), "int8")[0]
        assert np.abs(logits - float_logits).max() <= 0.05 * np.ptp(float_logits)
    quantizing = [node for node in after.model.graph.nodes if "quantize_per_channel" in str(node.target)]
    axes = {int(node.args[3]) for node in quantizing if "up" in str(node.args[0]) or "up" in str(node.args[0].args)}
    assert axes == {1}
    assert not [node for node in after.model.graph.nodes if "batch_norm" in str(node.target)]


NARROW = {
    "ptq, four bits": ("ptq", {"weight_bits": 4}),
    "ptq, one scale a weight": ("ptq", {"weight_bits": 4, "quantizer": {"use": "xnnpack", "per_channel": False}}),
    "ptq, repaired": ("ptq", {"weight_bits": 4, "rounding": "adaptive", "rounding_steps": 20, "correct_bias": True}),
    "qat, learned steps": ("qat", {"weight_bits": 4}),
    "qat, one scale a weight": ("qat", {"weight_bits": 4, "quantizer": {"use": "xnnpack", "per_channel": False}}),
    "qat, observed": ("qat", {"weight_bits": 3, "steps": "observed"}),
    "qat, six bits": ("qat", {"weight_bits": 6}),
}


@pytest.mark.parametrize("name", NARROW)
def test_fewer_bits(name: str, tmp_path: Path) -> None:
    """The conversion of `qat` checks itself, layer by layer."""
    how, options = NARROW[name]
    after = passed(state_of("output padding"), tmp_path, how, **options)
    (up,) = (each for each in layer_bits(after.model) if each.name == "up")
    assert up.weights == options.get("weight_bits", 6)
    require_agreement(after, "onnx", tmp_path, ExporterContract.int8_tolerance)
    if up.weights == 6:
        require_agreement(after, "executorch", tmp_path, ExporterContract.int8_tolerance)


@pytest.mark.parametrize("how", ["ptq", "qat"])
def test_a_transposed_layer_can_be_left_in_float(how: str, tmp_path: Path) -> None:
    after = passed(state_of("padding"), tmp_path, how, layer_bits={"up": "float"})
    for runtime in ("executorch", "onnx", "tflite"):
        assert require_agreement(after, runtime, tmp_path, ExporterContract.int8_tolerance)["layers_quantized"] == 2


class Residual(nn.Module):
    """A BatchNorm whose layer another one reads too, as networks have it that normalize before a block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 3, 2, 1)
        self.norm = nn.BatchNorm2d(CHANNELS)
        self.block = nn.Conv2d(CHANNELS, CHANNELS, 3, 1, 1)
        self.head = nn.Linear(CHANNELS, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        return self.head((x + self.block(torch.relu(self.norm(x)))).mean((2, 3)))


@pytest.mark.parametrize("options", [{}, {"rounding": "adaptive", "rounding_steps": 20}], ids=["plain", "repaired"])
def test_a_batch_norm_is_not_folded_into_a_layer_that_others_read(options: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Residual().eval()
    nn.init.uniform_(network.norm.weight, 2, 4)
    nn.init.uniform_(network.norm.bias, -2, 2)
    state, data = make_state(network), make_context(tmp_path / "data").data
    expected = program_outputs(program := to_program(state, data.calibration), data.calibration, Silent(), "float")[0]
    after = passed(state, tmp_path, "ptq", **options)
    logits = program_outputs(after, data.calibration, Silent(), "int8")[0]
    assert np.abs(logits - expected).max() <= 0.05 * np.ptp(expected)
    if options:
        return  # the program is as good as the other, whose files follow
    require_agreement(after, "onnx", tmp_path, ExporterContract.int8_tolerance)
    use = resolve(ExporterPlugin, "executorch", {"precision": "dynamic-int8"}, load_registry())
    (tmp_path / "dynamic").mkdir()
    file, _ = export_file(use, program, tmp_path / "dynamic")
    with use.plugin.opened(file, 1) as predictor:
        logits = file_outputs(predictor, data.calibration, feeder("values", data.preprocessing), Silent(), "file")[0]
    assert np.abs(logits - expected).max() <= 0.05 * np.ptp(expected)
