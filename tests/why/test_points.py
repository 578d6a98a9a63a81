"""Where a program rounds, and what of a file is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
import torch.ao.quantization.fx._decomposed
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.export import Dim, export

from edgeopt.plugins import TapRequest
from edgeopt.why.points import rounded_program
from edgeopt_onnx.tap import TappedOnnx

STEP = 0.05


def rounded(values: Tensor, step: float = STEP) -> Tensor:
    ops = torch.ops.quantized_decomposed
    integers = ops.quantize_per_tensor(values, step, 0, -128, 127, torch.int8)
    return ops.dequantize_per_tensor(integers, step, 0, -128, 127, torch.int8)


class Split(nn.Module):
    """Splits rounded channels, rounds one half in the same steps and the other in finer ones, and joins them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, second = rounded(x).chunk(2, 1)
        joined = rounded(torch.cat([rounded(first), rounded(second, STEP / 4)], 1))
        return rounded(torch.relu(self.layer(joined))).mean((2, 3))


def test_only_what_adds_an_error_is_a_point() -> None:
    """A half that is rounded in the steps that it has already adds none."""
    program = export(Split(), (torch.randn(2, 4, 6, 6),), dynamic_shapes=({0: Dim("batch")},))
    points = rounded_program(program).points
    assert [(point.name, point.activation_bits) for point in points] == [
        ("input", 8),
        ("getitem", 8),
        ("cat", 8),
        ("layer", 8),
    ]
    finer, layer = points[1], points[3]
    assert finer.range == (-128 * STEP / 4, 127 * STEP / 4)
    assert [call.node.name for call in layer.calls] == ["conv2d", "relu"]
    assert layer.weight_bits == 32, "its weights stay in float"


def test_weights_that_are_computed_from_constants_are_not_shown(tmp_path: Path) -> None:
    """Weights of four bits come through a cast, with a scale for each channel; inner integers have one for all."""
    weight = np.arange(-4, 4, dtype=np.int8).reshape(4, 2, 1, 1)
    constants = {
        "stored": weight,
        "scales": np.array([0.1, 0.2, 0.3, 0.4], np.float32),
        "zeros": np.zeros(4, np.int8),
        "scale": np.float32(0.5),
        "zero": np.int8(3),
    }
    nodes = [
        helper.make_node("Identity", ["stored"], ["weight"]),
        helper.make_node("DequantizeLinear", ["weight", "scales", "zeros"], ["scaled"], axis=0),
        helper.make_node("QuantizeLinear", ["input", "scale", "zero"], ["integers"]),
        helper.make_node("DequantizeLinear", ["integers", "scale", "zero"], ["values"]),
        helper.make_node("Conv", ["values", "scaled"], ["convolved"]),
        helper.make_node("GlobalAveragePool", ["convolved"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 2, 3, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    tapped = TappedOnnx(TapRequest(path, None, None, (), 1, tmp_path))  # type: ignore[arg-type]
    batch = np.linspace(-2, 2, 36, dtype=np.float32).reshape(2, 2, 3, 3)
    seen = tapped.run(batch)
    shown = {tensor.name: tensor.values for tensor in seen.tensors}
    assert set(shown) == {"logits", "integers", "convolved", "pooled"}
    assert np.abs(shown["integers"] - batch).max() <= 0.25, "as what they stand for, half a step away at most"
    scaled = weight.astype(np.float32) * constants["scales"].reshape(4, 1, 1, 1)
    expected = np.einsum("oi,nihw->nohw", scaled[:, :, 0, 0], shown["integers"])
    np.testing.assert_allclose(shown["convolved"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(shown["logits"], seen.outputs[0])
    tapped.close()
