"""The ONNX exporter and predictor: what the file computes, carries and refuses."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from small_programs import CLASSES, SIZE, capture, float_net, images, odd_net, outputs, quantized
from torch.export import ExportedProgram

from edgeopt_onnx import conversion
from edgeopt_onnx.conversion import _copied, export_onnx, fold_weights
from edgeopt_onnx.options import CARD_KEY
from edgeopt_onnx.predictor import OnnxPredictor

CARD = '{"classes": ["käse", "b"]}'


@pytest.fixture(scope="module")
def programs() -> dict[str, ExportedProgram]:
    program = capture(float_net())
    return {"float": program, "int8": quantized(program)}


@pytest.mark.parametrize(("precision", "tolerance"), [("float", 1e-5), ("int8", 0.1)])
def test_the_file_computes_what_the_program_computes(
    programs: dict[str, ExportedProgram], tmp_path: Path, precision: str, tolerance: float
) -> None:
    report = export_onnx(programs[precision], tmp_path / "model.onnx", card_json=CARD)
    batch = images(33)
    expected = outputs(programs[precision], batch).numpy()
    with OnnxPredictor(report.path, threads=1) as predictor:
        logits = predictor.predict(batch.numpy())[0]
        assert predictor.metadata(CARD_KEY) == CARD
        assert (predictor.input_info.name, predictor.input_info.shape) == ("input", ("batch", 3, SIZE, SIZE))
        (info,) = predictor.output_infos
        assert (info.name, info.shape) == ("logits", ("batch", CLASSES))
        assert predictor.predict(batch.numpy()[:0])[0].shape == (0, CLASSES)
    assert logits.dtype == np.float32
    assert np.abs(logits - expected).max() <= tolerance * np.abs(expected).max()


def test_int8_weights_are_folded_and_counted(programs: dict[str, ExportedProgram], tmp_path: Path) -> None:
    report = export_onnx(programs["int8"], tmp_path / "model.onnx", card_json=CARD)
    model = onnx.load(report.path)
    initializers = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    quantized_inputs = [node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert not set(quantized_inputs) & set(initializers)
    assert sum(value.dtype == np.int8 and value.ndim > 1 for value in initializers.values()) == 4
    assert not any(value.dtype == np.float32 and value.ndim > 1 for value in initializers.values())
    assert (report.weighted_layers, report.quantized_layers) == (4, 4)
    assert report.quantize_nodes == len(quantized_inputs) > 0
    assert report.dequantize_nodes == report.quantize_nodes + 4


def test_equal_weights_lie_in_the_file_once(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3), torch.nn.Conv2d(32, 32, 3), torch.nn.Conv2d(32, 32, 3))
    net.append(torch.nn.AdaptiveAvgPool2d(1)).append(torch.nn.Flatten())
    net[2].load_state_dict(net[1].state_dict())
    program = capture(net.eval())
    report = export_onnx(program, tmp_path / "model.onnx", card_json=CARD)
    own = sum(each.numel() for layer in net[:2] for each in layer.parameters())
    assert 4 * own < report.size_bytes < 4 * own + 3000
    with OnnxPredictor(report.path, threads=1) as predictor:
        answers = predictor.predict(images(3).numpy())[0]
    assert np.allclose(answers, outputs(program, images(3)).numpy(), atol=1e-5)


def test_a_quick_conversion_writes_the_same_bytes(
    programs: dict[str, ExportedProgram], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = export_onnx(programs["int8"], tmp_path / "quick.onnx", card_json="{}").path.read_bytes()
    monkeypatch.setattr(conversion, "quick_conversion", nullcontext)
    assert export_onnx(programs["int8"], tmp_path / "slow.onnx", card_json="{}").path.read_bytes() == quick


def test_float_has_no_quantized_layer(programs: dict[str, ExportedProgram], tmp_path: Path) -> None:
    report = export_onnx(programs["float"], tmp_path / "model.onnx", card_json=CARD)
    assert (report.weighted_layers, report.quantized_layers, report.quantize_nodes) == (4, 0, 0)


def test_the_file_carries_nothing_of_the_exporter(programs: dict[str, ExportedProgram], tmp_path: Path) -> None:
    report = export_onnx(programs["int8"], tmp_path / "model.onnx", card_json=CARD)
    content = (tmp_path / "model.onnx").read_bytes()
    assert len(content) == report.size_bytes
    for leak in (b"pkg.torch", b"pkg.onnxscript", b"stack_trace", b"small_programs", str(Path.home()).encode()):
        assert leak not in content
    model = onnx.load_from_string(content)
    assert [one.key for one in model.metadata_props] == [CARD_KEY]
    used = {name for node in model.graph.node for name in node.input}
    assert {one.name for one in model.graph.initializer} <= used
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_the_program_stays_as_it_is(programs: dict[str, ExportedProgram], tmp_path: Path) -> None:
    program = programs["int8"]
    before = (str(program.graph), {name: tensor.clone() for name, tensor in program.state_dict.items()})
    for name in ("first", "second"):
        export_onnx(program, tmp_path / f"{name}.onnx", card_json=CARD)
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()
    assert str(program.graph) == before[0]
    assert program.state_dict.keys() == before[1].keys()
    assert all(torch.equal(program.state_dict[name], tensor) for name, tensor in before[1].items())


def test_folding_keeps_the_function(programs: dict[str, ExportedProgram]) -> None:
    folded = fold_weights(_copied(programs["int8"]))
    folded.validate()
    batch = images(9)
    assert torch.equal(outputs(folded, batch), outputs(programs["int8"], batch))
    assert any(tensor.dtype == torch.int8 and tensor.ndim == 4 for tensor in folded.state_dict.values())


def test_a_quantized_bias_becomes_an_int32_constant(tmp_path: Path) -> None:
    class QuantizedBias(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = torch.nn.Parameter(torch.linspace(-1, 1, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            operators = torch.ops.quantized_decomposed
            values = (0.001, 0, -(2**31), 2**31 - 1, torch.int32)
            bias = operators.dequantize_per_tensor(operators.quantize_per_tensor(self.bias, *values), *values)
            return (x + bias[None, :, None, None]).mean(dim=(2, 3))

    program = capture(QuantizedBias())
    report = export_onnx(program, tmp_path / "model.onnx", card_json=CARD)
    assert (report.quantize_nodes, report.dequantize_nodes) == (0, 1)
    batch = images(4)
    logits = OnnxPredictor(report.path, threads=1).predict(batch.numpy())[0]
    np.testing.assert_allclose(logits, outputs(program, batch).numpy(), atol=1e-5)


@pytest.mark.parametrize("opset", [17, 18, 23])
def test_every_opset_opens_and_agrees(programs: dict[str, ExportedProgram], tmp_path: Path, opset: int) -> None:
    batch = images(5)
    report = export_onnx(programs["int8"], tmp_path / "model.onnx", card_json=CARD, opset=opset)
    assert onnx.load(report.path).opset_import[0].version == opset
    logits = OnnxPredictor(report.path, threads=1).predict(batch.numpy())[0]
    expected = outputs(programs["int8"], batch).numpy()
    assert np.abs(logits - expected).max() <= 0.1 * np.abs(expected).max()


def test_a_file_for_single_images_still_predicts_batches(programs: dict[str, ExportedProgram], tmp_path: Path) -> None:
    report = export_onnx(programs["int8"], tmp_path / "model.onnx", card_json=CARD, dynamic_batch=False)
    batch = images(3)
    with OnnxPredictor(report.path, threads=1) as predictor:
        assert predictor.input_info.shape == (1, 3, SIZE, SIZE)
        assert predictor.predict(batch.numpy())[0].shape == (3, CLASSES)


def test_an_operator_that_onnx_runtime_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(match=r"i0.*block\.odd"):
        export_onnx(capture(odd_net("bessel")), tmp_path / "model.onnx", card_json=CARD)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_batch_or_file_is_explained(programs: dict[str, ExportedProgram], tmp_path: Path) -> None:
    report = export_onnx(programs["float"], tmp_path / "model.onnx", card_json=CARD)
    predictor = OnnxPredictor(report.path)
    with pytest.raises(ValueError, match="not float64"):
        predictor.predict(images(1).numpy().astype(np.float64))
    with pytest.raises(ValueError, match=r"\(3, 24, 24\).*not float32 \(3, 8, 8\)"):
        predictor.predict(np.zeros((1, 3, 8, 8), np.float32))
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(ValueError, match=r"broken\.onnx"):
        OnnxPredictor(broken)


def test_the_predictor_imports_no_torch() -> None:
    code = "import sys, edgeopt_onnx.predictor; assert 'torch' not in sys.modules; assert 'onnx' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_attention_without_heads_has_one(tmp_path: Path) -> None:
    class OneHead(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = torch.nn.Conv2d(3, 3 * CLASSES, 8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            query, key, value = self.patches(x).flatten(2).transpose(1, 2).chunk(3, 2)
            return torch.nn.functional.scaled_dot_product_attention(query, key, value)[:, 0]

    program = capture(OneHead().eval())
    report = export_onnx(program, tmp_path / "model.onnx", card_json=CARD)
    batch = images(3)
    logits = OnnxPredictor(report.path, threads=1).predict(batch.numpy())[0]
    np.testing.assert_allclose(logits, outputs(program, batch).numpy(), atol=1e-5)


def test_an_int8_attention_layer_opens(tmp_path: Path) -> None:
    class Attention(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = torch.nn.Conv2d(3, 16, 8, 8)
            self.attention = torch.nn.MultiheadAttention(16, 2, batch_first=True)
            self.head = torch.nn.Linear(16, CLASSES)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tokens = self.patches(x).flatten(2).transpose(1, 2)
            return self.head(self.attention(tokens, tokens, tokens, need_weights=False)[0][:, 0])

    torch.manual_seed(0)
    program = quantized(capture(Attention().eval()))
    batch = images(9)
    expected = outputs(program, batch).numpy()
    for opset, target in ((20, "x86"), (23, "x86"), (23, "arm")):
        report = export_onnx(program, tmp_path / "model.onnx", card_json=CARD, opset=opset, target=target)
        logits = OnnxPredictor(report.path, threads=1).predict(batch.numpy())[0]
        assert np.abs(logits - expected).max() <= 0.1 * np.abs(expected).max()
