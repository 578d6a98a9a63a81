"""What the ExecuTorch exporter makes of a float program, and the files that it makes for other backends."""

from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace
from typing import ClassVar, get_args

import executorch
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from small_programs import SIZE, capture, float_net
from torch import nn
from torch.nn import functional

from edgeopt.errors import ExportError, NothingChangedError
from edgeopt.export.pixels_input import take_pixels
from edgeopt.plugins import Bits, Numerics
from edgeopt.plugins.declarations import ExporterPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve
from edgeopt.testing import ExporterContract
from edgeopt.testing.exporter import export_file
from edgeopt.testing.values import tiny_program
from edgeopt_executorch.backends import partitioner_of
from edgeopt_executorch.lowering import export_executorch
from edgeopt_executorch.options import Chip, ExecuTorchOptions
from edgeopt_executorch.plugin import check
from edgeopt_executorch.predictor import ExecuTorchPredictor


class TestFloat16(ExporterContract):
    name = "executorch"
    options: ClassVar = {"precision": "float16"}
    tolerance = 0.02
    takes_int8 = False


class TestDynamicInt8(ExporterContract):
    name = "executorch"
    options: ClassVar = {"precision": "dynamic-int8"}
    tolerance = 0.05
    takes_int8 = False
    test_takes_a_program_of_two_outputs = None  # as the same exporter does without these options


@pytest.mark.parametrize("precision", ["float16", "dynamic-int8"])
def test_a_converted_file_is_smaller_and_stays_in_the_delegate(precision, tmp_path):
    wide = nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1),
        nn.Hardswish(),
        nn.Conv2d(32, 32, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Hardsigmoid(),
        nn.Flatten(),
        nn.Linear(32, 1000),  # ExecuTorch keeps a convolution's weights in float32 whatever its arithmetic is
    )
    program = capture(wide.eval())
    float_report = export_executorch(program, tmp_path / "float.pte", card_json="{}")
    report = export_executorch(program, tmp_path / "small.pte", card_json="{}", precision=precision)
    assert report.size_bytes < 0.8 * float_report.size_bytes
    assert report.partitions == 1
    # float16 is cast at both ends, and nowhere in between
    assert len(report.outside) == (2 if precision == "float16" else 0)
    assert (report.quantized_layers > 0) == (precision == "dynamic-int8")


def assert_right_in_float16(net, tolerance, file):
    """`tolerance` is a share of the range of the float network's logits."""
    export_executorch(capture(net), file, card_json="{}", precision="float16")
    images = torch.randn(3, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = net(images).numpy()
    with ExecuTorchPredictor(file, threads=1) as predictor:
        np.testing.assert_allclose(predictor.predict(images.numpy())[0], expected, atol=tolerance * np.ptp(expected))


@pytest.mark.parametrize("affine", [True, False])
def test_a_wide_layer_norm_is_right_in_float16(affine, tmp_path):
    """ExecuTorch's own kernel adds up in float16: of 384 values, logits were 48 times their range off."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 2, 3, padding=1),
        nn.Flatten(),
        nn.LayerNorm(2 * SIZE * SIZE, elementwise_affine=affine),
        nn.GELU(),
        nn.Linear(2 * SIZE * SIZE, 10),
    ).eval()
    assert_right_in_float16(net, 0.01, tmp_path / "x.pte")


class Scaled(nn.Module):
    """Divides vectors, many of which are zero, by their length and by their sum."""

    def forward(self, images):
        images = functional.relu(images - 1)
        share = images / (images.sum(1, keepdim=True) + 1e-9)
        return torch.cat([functional.normalize(images, dim=1), share], 1)


def test_what_keeps_a_divisor_from_zero_does_so_in_float16(tmp_path):
    """1e-12 is 0 in float16, and 0 / 0 no number."""
    torch.manual_seed(0)
    net = nn.Sequential(Scaled(), nn.Conv2d(6, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)).eval()
    assert_right_in_float16(net, 0.02, tmp_path / "x.pte")


def test_values_that_float16_cannot_hold_are_an_error(tmp_path):
    net = float_net()
    with torch.no_grad():
        net.stem[0].weight *= 1e7
    net.stem[1] = nn.Identity()
    with pytest.raises(ExportError, match="too large for float16"):
        export_executorch(capture(net), tmp_path / "x.pte", card_json="{}", precision="float16")
    assert not (tmp_path / "x.pte").exists()


def test_nothing_to_quantize_dynamically_is_an_error(tmp_path):
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(NothingChangedError):
        export_executorch(capture(net.eval()), tmp_path / "x.pte", card_json="{}", precision="dynamic-int8")


@pytest.mark.parametrize("backend", ["coreml", "vulkan"])
def test_a_backend_of_the_wheel_takes_the_graph(backend, tmp_path):
    use = resolve(ExporterPlugin, "executorch", {"backend": backend}, load_registry())
    _, result = export_file(use, tiny_program(), tmp_path)
    assert result.facts["backend"] == backend
    assert result.delegated_share is not None
    assert result.delegated_share > 0.9
    assert backend in result.not_run  # nobody claims that it was opened


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.delenv("QNN_SDK_ROOT", raising=False)
    with pytest.raises(ExportError, match="'qnn' is missing") as caught:
        partitioner_of("qnn")
    assert "QNN_SDK_ROOT" in str(caught.value.problems[0].hint)


def test_pixels_give_the_logits_of_the_plain_file(tmp_path):
    state = tiny_program()
    use = resolve(ExporterPlugin, "executorch", {}, load_registry())
    plain, _ = export_file(use, state, tmp_path)
    (tmp_path / "pixels").mkdir()
    pixels_file, result = export_file(use, take_pixels(state), tmp_path / "pixels")
    assert (result.input.dtype, result.input.layout, result.input.holds) == ("uint8", "NHWC", "pixels")
    size = state.preprocessing.image_size
    images_ = torch.randint(0, 256, (4, size, size, 3), dtype=torch.uint8).numpy()
    expected = use.plugin.open(plain, 1).predict(state.preprocessing.normalize(images_))[0]
    assert abs(use.plugin.open(pixels_file, 1).predict(images_)[0] - expected).max() < 1e-5


def test_several_inputs_or_outputs_are_named(tmp_path):
    class Two(nn.Module):
        def forward(self, left, right):
            return left.flatten(1), right.flatten(1)

    pair = (torch.zeros(1, 3, SIZE, SIZE), torch.zeros(1, 3, SIZE, SIZE))
    with pytest.raises(ExportError, match="2 inputs: left, right"):
        export_executorch(torch.export.export(Two(), pair), tmp_path / "x.pte", card_json="{}")


def test_the_chip_is_one_that_executorch_knows_and_is_for_qualcomm_alone():
    (root,) = executorch.__path__
    path = f"{root}/backends/qualcomm/serialization/qc_schema.py"  # its package imports what only the compiler needs
    found = importlib.util.spec_from_file_location("qc_schema", path)
    schema = importlib.util.module_from_spec(found)
    sys.modules["qc_schema"] = schema
    found.loader.exec_module(schema)
    known = {chip.name for chip in schema.QcomChipset} - {"UNKNOWN_SM"}
    assert set(get_args(Chip)) == known
    numerics = Numerics((), "torch", Bits())
    (problem,) = check(ExecuTorchOptions(chip="SM8550"), numerics)
    assert (problem.option, "compiles for none" in problem.message) == ("chip", True)
    assert not list(check(ExecuTorchOptions(chip="SM8550", backend="qnn"), numerics))
    with pytest.raises(ValidationError, match="SM8850"):
        ExecuTorchOptions(chip="SM9999", backend="qnn")


def test_the_compiler_is_told_the_chip(monkeypatch):
    """With a compiler that notes what it is given: Qualcomm's own is not installed."""
    told = []
    schema = SimpleNamespace(QcomChipset={"SM8550": 43, "SM8650": 57})
    utils = SimpleNamespace(
        generate_htp_compiler_spec=lambda **_: "htp",
        generate_qnn_executorch_compiler_spec=lambda chip, _: told.append(chip),
    )
    root = "executorch.backends.qualcomm"
    monkeypatch.setenv("QNN_SDK_ROOT", "/opt/qnn")
    monkeypatch.setitem(sys.modules, f"{root}.partition.qnn_partitioner", SimpleNamespace(QnnPartitioner=lambda _: 1))
    monkeypatch.setitem(sys.modules, f"{root}.serialization.qc_schema", schema)
    monkeypatch.setitem(sys.modules, f"{root}.utils", SimpleNamespace(utils=utils))
    partitioner_of("qnn", "SM8550")
    partitioner_of("qnn")
    assert told == [43, 57]
