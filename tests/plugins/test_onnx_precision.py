"""Every precision of the ONNX exporter: the same contract, sizes, what is refused, and what is left in float."""

# ruff: noqa: RUF012 - a contract is set up by the attributes of its class

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from qdq_graphs import Chain, images, run
from small_programs import CLASSES, SIZE, capture, float_net, outputs, quantized
from small_programs import images as small_images
from torch.export import ExportedProgram, export

from edgeopt.errors import ExportError, NothingChangedError
from edgeopt.plugins.declarations import ExporterPlugin, Numerics, QuantizerPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve
from edgeopt.testing import ExporterContract, tiny_program
from edgeopt.testing.exporter import export_file
from edgeopt_onnx.conversion import export_onnx
from edgeopt_onnx.options import companion
from edgeopt_onnx.precision import quantize_weights
from edgeopt_onnx.predictor import OnnxPredictor

# ---- converted from a float program --------------------------------------------------------------------------------


class Converted(ExporterContract):
    name = "onnx"
    tolerance = 0.05
    takes_int8 = False
    test_takes_a_program_of_two_outputs = None  # as the same exporter does without these options

    def test_it_says_what_it_is(self, use, exported):
        path, result = exported
        assert result.precision == use.options.precision
        assert self.stored in {tensor.data_type for tensor in onnx.load(path).graph.initializer}


class TestFloat16(Converted):
    options = {"precision": "float16"}
    stored = onnx.TensorProto.FLOAT16
    tolerance = 0.01


class TestDynamicInt8(Converted):
    options = {"precision": "dynamic-int8"}
    stored = onnx.TensorProto.INT8


class TestWeightOnlyInt8(Converted):
    options = {"precision": "weight-only-int8"}
    stored = onnx.TensorProto.INT8


@pytest.fixture(scope="module")
def programs() -> dict[str, ExportedProgram]:
    program = capture(float_net())
    return {"float": program, "int8": quantized(program)}


@pytest.mark.parametrize("folded_at_load", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_int8_weights_are_within_half_a_step(folded_at_load: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    weights = random.standard_normal((6, 4, 3, 3)).astype(np.float32) * random.uniform(0.01, 10, (6, 1, 1, 1))
    weights[2] = 0  # no range
    chain = Chain()
    chain.add("Conv", chain.constant(weights.astype(np.float32)), pads=[1] * 4)
    model = chain.model()
    batch = images()
    before = run(model, batch)
    assert quantize_weights(model.graph, folded_at_load=folded_at_load) == 1
    after = run(model, batch)
    steps = np.abs(weights).max(axis=(1, 2, 3)) / 127
    worst = np.abs(np.pad(batch, [(0, 0), (0, 0), (1, 1), (1, 1)])).sum(axis=(1, 2, 3)).max() * steps / 2
    assert (np.abs(before - after).max(axis=(0, 2, 3)) <= worst + 1e-5).all()
    assert np.array_equal(after[:, 2], before[:, 2])
    assert run(model, batch, fuse=True) == pytest.approx(after, abs=1e-4)


def test_weights_written_for_the_runtime_are_the_same_numbers_as_dequantized_ones() -> None:
    results = []
    for folded_at_load in (True, False):
        chain = Chain()
        chain.add("Conv", chain.constant(np.random.default_rng(0).standard_normal((6, 4, 1, 1)).astype(np.float32)))
        model = chain.model()
        quantize_weights(model.graph, folded_at_load=folded_at_load)
        results.append(run(model, images()))
    assert np.array_equal(*results)


@pytest.mark.parametrize("precision", ["float16", "dynamic-int8", "weight-only-int8"])
def test_an_int8_program_is_not_converted_again(precision: str, tmp_path: Path) -> None:
    from dataclasses import replace

    use = resolve(ExporterPlugin, "onnx", {"precision": precision}, load_registry())
    with pytest.raises(ExportError, match="float program") as caught:
        export_file(use, replace(tiny_program(), precision="int8"), tmp_path)
    assert caught.value.problems[0].option == "precision"
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_convert_is_an_error(tmp_path: Path) -> None:
    class Mean(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(dim=(2, 3))

    program = capture(Mean())
    for precision in ("float16", "dynamic-int8", "weight-only-int8"):
        with pytest.raises(NothingChangedError):
            export_onnx(program, tmp_path / "model.onnx", card_json="{}", precision=precision)
    assert list(tmp_path.iterdir()) == []


# ---- what is refused before anything runs --------------------------------------------------------------------------


def problems(options: dict[str, str], *schemes: str) -> list[str | None]:
    use = resolve(ExporterPlugin, "onnx", options, load_registry())
    xnnpack = load_registry().get(QuantizerPlugin, "xnnpack")
    quantizers = tuple(
        QuantizerPlugin(xnnpack.name, xnnpack.summary, xnnpack.options, build=xnnpack.build, scheme=scheme)
        for scheme in schemes
    )
    return [problem.option for problem in use.plugin.check(use.options, Numerics(quantizers))]


def test_check_refuses_what_cannot_work() -> None:
    assert problems({"precision": "float16"}, "int8-affine") == ["precision"]
    assert problems({"precision": "auto"}) == ["precision"]
    assert problems({"precision": "auto", "target": "tensorrt"}, "int8-symmetric") == ["precision"]
    assert problems({"target": "tensorrt"}, "int8-affine") == ["target"]


def test_check_lets_pass_what_can_work() -> None:
    assert problems({}) == problems({}, "int8-affine") == problems({"precision": "float16"}) == []
    assert problems({"precision": "auto"}, "int8-affine") == []
    assert problems({"target": "tensorrt"}) == problems({"target": "tensorrt"}, "int8-symmetric") == []


def test_the_float_file_beside_a_converted_one_is_plain() -> None:
    use = resolve(ExporterPlugin, "onnx", {"precision": "float16", "opset": 19}, load_registry())
    assert (
        use.plugin.float_options(use.options) == resolve(ExporterPlugin, "onnx", {"opset": 19}, load_registry()).options
    )


# ---- what the runtime fuses ----------------------------------------------------------------------------------------


def test_every_quantized_layer_is_fused(programs: dict[str, ExportedProgram], tmp_path: Path) -> None:
    report = export_onnx(programs["int8"], tmp_path / "model.onnx", card_json="{}")
    assert (report.quantized_layers, report.fused_layers, report.outside) == (4, 4, ())
    fused = report.fused_operators
    assert (fused["QLinearConv"], fused["QGemm"], fused["QLinearAdd"], fused["QLinearMul"]) == (3, 1, 1, 1)
    assert fused["QLinearGlobalAveragePool"] == 2


def test_layers_that_the_runtime_computes_in_float_are_named(
    programs: dict[str, ExportedProgram], tmp_path: Path
) -> None:
    report = export_onnx(programs["int8"], tmp_path / "model.onnx", card_json="{}", target="arm")
    names = [str(place) for place in report.outside]
    assert len(names) == report.quantized_layers - report.fused_layers
    assert all(name.startswith(("Conv (in ", "Gemm (in ")) for name in names)


def test_float_files_fuse_nothing(programs: dict[str, ExportedProgram], tmp_path: Path) -> None:
    report = export_onnx(programs["float"], tmp_path / "model.onnx", card_json="{}")
    assert (report.fused_layers, report.fused_operators, report.outside) == (0, {}, ())


# ---- weights beside the file ---------------------------------------------------------------------------------------


def test_weights_beside_the_file(tmp_path: Path) -> None:
    program = capture(torch.nn.Sequential(float_net(), torch.nn.Linear(CLASSES, 512)))
    path = tmp_path / "model.onnx"
    report = export_onnx(program, path, card_json="{}", external_data="always")
    files = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert files.keys() == {"model.onnx", companion(path).name}
    assert report.size_bytes == sum(map(len, files.values()))
    assert len(files[companion(path).name]) >= 512 * CLASSES * 4
    expected = outputs(program, small_images(3)).numpy()
    logits = OnnxPredictor(path, threads=1).predict(small_images(3).numpy())[0]
    assert np.abs(logits - expected).max() <= 1e-5 * np.ptp(expected)
    export_onnx(program, path, card_json="{}", external_data="always")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == files


# ---- inputs and outputs --------------------------------------------------------------------------------------------


def test_several_inputs_or_outputs_are_named(tmp_path: Path) -> None:
    class Two(torch.nn.Module):
        def forward(self, first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return first + second, first - second

    batch = torch.zeros(2, 3, SIZE, SIZE)
    with pytest.raises(ExportError, match="2 inputs: first, second"):
        export_onnx(export(Two(), (batch, batch)), tmp_path / "model.onnx", card_json="{}")

    class Both(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x + 1, x - 1

    with pytest.raises(ExportError, match=r"2 outputs"):
        export_onnx(export(Both(), (batch,)), tmp_path / "model.onnx", card_json="{}")


def test_a_file_with_two_inputs_is_refused_by_name(tmp_path: Path) -> None:
    given = [onnx.helper.make_tensor_value_info(name, 1, ["n", 3]) for name in ("left", "right", "sum")]
    node = onnx.helper.make_node("Add", ["left", "right"], ["sum"])
    graph = onnx.helper.make_graph([node], "two", given[:2], given[2:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, tmp_path / "two.onnx")
    use = resolve(ExporterPlugin, "onnx", {}, load_registry())
    with pytest.raises(ExportError, match=r"2 inputs.*left, right"):
        use.plugin.open(tmp_path / "two.onnx", 1)


def test_a_file_of_pixels_is_fed_pixels(tmp_path: Path) -> None:
    from edgeopt.export.pixels_input import take_pixels

    state = take_pixels(tiny_program())
    use = resolve(ExporterPlugin, "onnx", {}, load_registry())
    path, result = export_file(use, state, tmp_path)
    size = state.preprocessing.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    with OnnxPredictor(path, threads=1) as predictor:
        assert predictor.input_info == result.input
        assert (result.input.dtype, result.input.layout, result.input.holds) == ("uint8", "NHWC", "pixels")
        logits = predictor.predict(pixels)[0]
    expected = tiny_program().program.module()(torch.from_numpy(state.preprocessing.normalize(pixels))).detach().numpy()
    assert np.abs(logits - expected).max() <= 1e-3 * np.ptp(expected)
