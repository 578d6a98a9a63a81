"""Convolutions whose padding is a word: the same layers, in every runtime, as with the padding in numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeopt.measure.answers import feeder, file_outputs
from edgeopt.networks.capture import capture, export_program, program_outputs
from edgeopt.networks.layers import layer_call
from edgeopt.plugins import ExporterPlugin, Form, ModelState
from edgeopt.plugins.registry import load_registry
from edgeopt.progress import Silent
from edgeopt.recipe.lookup import resolve
from edgeopt.tasks import TASKS
from edgeopt.testing import tiny_data
from edgeopt.testing.exporter import export_file
from edgeopt_executorch.quantizer import build_xnnpack
from edgeopt_tensorrt.quantizer import build_tensorrt
from edgeopt_torchao.graph.layers import count_quantized
from edgeopt_torchao.quantize.agreement import compare
from edgeopt_torchao.quantize.convert import convert
from edgeopt_torchao.quantize.prepare import calibrate, prepare_ptq, prepare_qat

SIZE, CLASSES, CHANNELS = 16, 5, 8
DATA = tiny_data(CLASSES, SIZE)


def convolution(kernel: int, dilation: int = 1, *, in_words: bool, **options: Any) -> nn.Module:
    """A convolution that keeps the size of its input, in one of two ways to write it."""
    if in_words:
        return nn.Conv2d(CHANNELS, CHANNELS, kernel, padding="same", dilation=dilation, **options)
    total = dilation * (kernel - 1)
    plain = nn.Conv2d(CHANNELS, CHANNELS, kernel, padding=total // 2, dilation=dilation, **options)
    extra = total % 2
    return nn.Sequential(nn.ZeroPad2d((0, extra, 0, extra)), plain) if extra else plain


class Padded(nn.Module):
    """Kernels of three to five, dilated and depthwise, with BatchNorm, ReLU6, ReLU, Hardswish and a residual."""

    def __init__(self, *, in_words: bool) -> None:
        super().__init__()

        def same(kernel: int, **options: Any) -> nn.Module:
            return convolution(kernel, in_words=in_words, **options)

        self.stem = nn.Conv2d(3, CHANNELS, 3, 1, padding="valid" if in_words else 0)
        self.body = nn.Sequential(
            nn.ReLU6(),
            same(3, bias=False),
            nn.BatchNorm2d(CHANNELS),
            nn.ReLU6(),
            same(4, bias=False),
            nn.BatchNorm2d(CHANNELS),
            nn.ReLU(),
            same(5, groups=CHANNELS),
            nn.Hardswish(),
            same(3, dilation=2),
            nn.ReLU6(),
            same(2, dilation=3),
            nn.ReLU6(inplace=True),
        )
        self.last = same(1)
        self.head = nn.Linear(CHANNELS, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = self.body(self.stem(images))
        return self.head((x + self.last(x)).mean((2, 3)))


LAYERS = 8


def images(seed: int = 0) -> Tensor:
    return torch.randn(16, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def networks() -> tuple[nn.Module, nn.Module]:
    """The network in words, and the same one in numbers."""
    torch.manual_seed(0)
    words = Padded(in_words=True).train()
    with torch.no_grad():
        for seed in range(3):
            words(images(seed))
    numbers = Padded(in_words=False)
    numbers.load_state_dict(dict(zip(numbers.state_dict(), words.state_dict().values(), strict=True)))
    return words.eval(), numbers.eval()


def quantized(network: nn.Module, build: Any, *, qat: bool) -> nn.Module:
    program = capture(network, images(), (1, 16))
    quantizer = build(qat=qat, **({"per_channel": True} if build is build_xnnpack else {}))
    if not qat:
        prepared = prepare_ptq(program, quantizer)
        calibrate(prepared, [images(seed) for seed in range(3)])
        return convert(prepared)
    prepared = prepare_qat(program, quantizer)
    optimizer = torch.optim.SGD(prepared.parameters(), lr=1e-3)
    for seed in range(3):
        loss = nn.functional.cross_entropy(prepared(images(seed)), torch.arange(16) % CLASSES)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    prepared.eval()
    converted = convert(prepared)
    assert compare(prepared, converted, [images(9)]).relative_difference < 0.03
    return converted


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, (2, 5), (4, 3)])
@pytest.mark.parametrize("options", [{}, {"dilation": 3}, {"groups": 4, "bias": False}])
@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d, nn.Conv3d])
def test_words_become_numbers(kind: type[nn.Module], kernel: Any, options: dict[str, Any]) -> None:
    """Of any convolution; the values stay what they are, to the bit."""
    axes = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}[kind]
    if isinstance(kernel, tuple):
        kernel = (*kernel, 3)[-axes:] if axes != 2 else kernel
    torch.manual_seed(0)
    network = nn.Sequential(kind(4, 8, kernel, padding="same", **options), kind(8, 4, 1, padding="valid")).eval()
    example = torch.randn(2, 4, *[11, 9, 8][:axes])
    program = export_program(network, example, (1, 8))
    assert not [node.target for node in program.graph.nodes if str(node.target).endswith(".padding")]
    with torch.no_grad():
        torch.testing.assert_close(program.module()(example), network(example), rtol=0, atol=0)


@pytest.mark.parametrize("qat", [False, True], ids=["ptq", "qat"])
@pytest.mark.parametrize("build", [build_xnnpack, build_tensorrt])
def test_words_are_quantized_as_numbers_are(build: Any, qat: bool) -> None:
    """Every layer, with as many roundings in between: none is left between a layer and its ReLU6."""
    found = []
    for network in networks():
        program = export_program(quantized(network, build, qat=qat), images(), (1, 16))
        assert count_quantized(program).quantized == count_quantized(program).layers == LAYERS
        found.append((program.module()(images(9)), [str(node.target) for node in program.graph.nodes]))
    (words, operators), (numbers, others) = found
    torch.testing.assert_close(words, numbers, rtol=0, atol=0)
    assert [each for each in operators if "." in each] == [each for each in others if "." in each]


class Clipped(nn.Module):
    """ReLU6, as a module and as a function, behind a convolution in one dimension and a transposed one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 3, padding="same")
        self.up = nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, 2)
        self.row = nn.Conv1d(CHANNELS, CHANNELS, 3, padding="same")
        self.clip = nn.ReLU6()
        self.head = nn.Linear(CHANNELS, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = self.clip(self.up(nn.functional.relu6(self.stem(images))))
        return self.head(nn.functional.relu6(self.row(x.mean(3))).mean(2))


@pytest.mark.parametrize("qat", [False, True], ids=["ptq", "qat"])
def test_no_layer_is_rounded_before_its_relu6(qat: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Clipped().eval()
    program = export_program(quantized(network, build_xnnpack, qat=qat), images(), (1, 16))
    assert count_quantized(program).quantized == 4
    clips = [node for node in program.graph.nodes if "hardtanh" in str(node.target)]
    assert len(clips) == 3
    assert all(layer_call(node.args[0]) is not None for node in clips), "an operator stands between layer and ReLU6"
    assert not [node for node in program.graph.nodes if "relu6" in str(node.target)]
    state = ModelState(
        program, Form.PROGRAM, TASKS["classification"], DATA.classes, DATA.preprocessing, "int8", (1, 16)
    )
    for runtime in ("executorch", "onnx"):  # LiteRT's converter has no int8 transposed convolution
        use = resolve(ExporterPlugin, runtime, {}, load_registry())
        (folder := tmp_path / runtime).mkdir()
        file, result = export_file(use, state, folder)
        assert result.facts["layers_quantized"] == 4
        assert not [place for place in result.outside if "hardtanh" in place or "clamp" in place]
        expected = program_outputs(state, DATA.validation, Silent(), "program")[0]
        with use.plugin.opened(file, 1) as predictor:
            logits = file_outputs(predictor, DATA.validation, feeder("values", DATA.preprocessing), Silent(), "file")[0]
        assert np.abs(logits - expected).max() <= 0.02 * np.ptp(expected)


@pytest.fixture(scope="module")
def int8() -> ModelState:
    program = export_program(quantized(networks()[0], build_xnnpack, qat=False), images(), (1, 16))
    return ModelState(program, Form.PROGRAM, TASKS["classification"], DATA.classes, DATA.preprocessing, "int8", (1, 16))


@pytest.mark.parametrize("runtime", ["executorch", "onnx", "tflite"])
def test_every_layer_of_the_file_is_int8(int8: ModelState, runtime: str, tmp_path: Path) -> None:
    use = resolve(ExporterPlugin, runtime, {}, load_registry())
    file, result = export_file(use, int8, tmp_path)
    assert result.facts["layers"] == result.facts["layers_quantized"] == LAYERS
    assert result.delegated_share in (None, 1.0)
    expected = program_outputs(int8, DATA.validation, Silent(), "program")[0]
    with use.plugin.opened(file, 1) as predictor:
        logits = file_outputs(predictor, DATA.validation, feeder("values", DATA.preprocessing), Silent(), "file")[0]
    assert np.abs(logits - expected).max() <= 0.02 * np.ptp(expected)


def test_tensorrt_takes_every_layer_as_int8(tmp_path: Path) -> None:
    """The static check of its graph says so; no GPU is needed."""
    program = export_program(quantized(networks()[0], build_tensorrt, qat=False), images(), (1, 16))
    state = ModelState(
        program, Form.PROGRAM, TASKS["classification"], DATA.classes, DATA.preprocessing, "int8", (1, 16)
    )
    _, result = export_file(resolve(ExporterPlugin, "tensorrt", {}, load_registry()), state, tmp_path)
    assert result.facts["layers"] == result.facts["layers_quantized"] == LAYERS
